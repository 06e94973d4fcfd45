// Package lognotify tells the humans through the log: for workers that have nobody else to tell.
package lognotify

import (
	"context"
	"log/slog"
	"sync"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/rollout"
)

// remembered is how many notices a Notifier knows it has logged.
const remembered = 1024

// Notifier writes one log record per notice. It is safe for concurrent use.
//
// A notice that is sent again is not logged again, as long as it is among the last 1024 of this process. A restart in between
// can leave it in the logs of both processes, with the same notice_id.
type Notifier struct {
	log *slog.Logger

	mu    sync.Mutex
	seen  map[string]bool
	order []string // oldest first
}

var _ notify.Notifier = (*Notifier)(nil)

// New is a Notifier that writes to log.
func New(log *slog.Logger) *Notifier {
	return &Notifier{log: log, seen: map[string]bool{}}
}

// Notify logs the notice at the level of its urgency. The only error is that of ctx. The thread is empty.
func (n *Notifier) Notify(ctx context.Context, request notify.Request) (notify.Thread, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	notice := request.Notice
	if !n.first(notice.ID) {
		return nil, nil
	}
	level := slog.LevelInfo
	switch notice.Urgency {
	case rollout.Warn:
		level = slog.LevelWarn
	case rollout.Alert:
		level = slog.LevelError
	}
	d := notice.Decision
	n.log.LogAttrs(ctx, level, "rollout notice",
		slog.String("notice_id", notice.ID), slog.String("agent", notice.Agent),
		slog.String("stable", notice.Stable), slog.String("canary", notice.Canary),
		slog.String("decision", string(d.Kind)), slog.String("by", d.By), slog.String("reason", d.Reason),
		slog.String("phase", string(notice.Status.Phase)), slog.String("stage", notice.Status.Stage),
		slog.String("weight", notice.Status.Weight.String()), slog.String("verdict", string(notice.Status.Verdict)))
	return nil, nil
}

// first reports whether id is new, and remembers it.
func (n *Notifier) first(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen[id] {
		return false
	}
	if len(n.order) == remembered {
		delete(n.seen, n.order[0])
		n.order = n.order[1:]
	}
	n.seen[id] = true
	n.order = append(n.order, id)
	return true
}
