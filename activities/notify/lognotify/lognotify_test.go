package lognotify_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/activities/notify/lognotify"
	"github.com/aviary-rollouts/aviary/activities/notify/notifytest"
	"github.com/aviary-rollouts/aviary/rollout"
)

type buffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *buffer) records(t *testing.T) []map[string]any {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []map[string]any
	for d := json.NewDecoder(bytes.NewReader(b.Bytes())); d.More(); {
		var r map[string]any
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func receiver(t *testing.T) (notifytest.Receiver, *buffer) {
	b := &buffer{}
	return notifytest.Receiver{
		Notifier: lognotify.New(slog.New(slog.NewJSONHandler(b, nil))),
		Address:  func(*rollout.Notify) {},
		Seen: func() []string {
			var ids []string
			for _, r := range b.records(t) {
				ids = append(ids, r["notice_id"].(string))
			}
			return ids
		},
	}, b
}

func TestConformance(t *testing.T) {
	t.Parallel()
	notifytest.Run(t, func(t *testing.T) notifytest.Receiver {
		r, _ := receiver(t)
		return r
	})
}

func TestLevels(t *testing.T) {
	t.Parallel()
	for urgency, level := range map[rollout.Urgency]string{rollout.Info: "INFO", rollout.Warn: "WARN", rollout.Alert: "ERROR"} {
		r, b := receiver(t)
		n := r.Notice("a", 1)
		n.Urgency = urgency
		if _, err := r.Notifier.Notify(t.Context(), notify.Request{Notice: n, Attempt: 1}); err != nil {
			t.Fatal(err)
		}
		got := b.records(t)[0]
		if got["level"] != level || got["weight"] != "5%" || got["reason"] != "reason 1" {
			t.Errorf("%s was logged as %v", urgency, got)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	r, b := receiver(t)
	const n = 1500
	for i := range n {
		notice := r.Notice("a", i+1)
		notice.ID = fmt.Sprint(i)
		if _, err := r.Notifier.Notify(t.Context(), notify.Request{Notice: notice, Attempt: 1}); err != nil {
			t.Fatal(err)
		}
	}
	old, recent := r.Notice("a", 1), r.Notice("a", 1)
	old.ID, recent.ID = "0", fmt.Sprint(n-1)
	for _, notice := range []rollout.Notice{old, recent} {
		if _, err := r.Notifier.Notify(t.Context(), notify.Request{Notice: notice, Attempt: 2}); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(b.records(t)); got != n+1 {
		t.Errorf("%d records, want %d: the oldest is forgotten, the newest is not", got, n+1)
	}
}
