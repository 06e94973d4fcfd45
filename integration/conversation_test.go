package integration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/internal/crowd"
	"github.com/aviary-rollouts/aviary/rollout"
)

// TestConversationsStayWholeInARollout is a rollout over two replicas of the gateway, one of which is killed and comes back,
// under conversations whose turns meet either. None may change its version, but by the rollback, and then it is told.
func TestConversationsStayWholeInARollout(t *testing.T) {
	t.Parallel()
	for _, end := range []rollout.Phase{rollout.Promoted, rollout.RolledBack} {
		t.Run(string(end), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{behavior: perfect(), replicas: 2})
			users := &crowd.Crowd{Conversations: 2000, Turns: 8, Talkers: 4, Pause: 2 * time.Millisecond,
				URLs: []string{w.url("support-agent"), "http://" + w.second.Proxy + "/agents/support-agent"}}
			report := w.talk(users, func() {
				w.start(`
agent: support-agent
stable: v41
canary: v42
traffic: {lease: 10s}
metrics: {interval: 500ms}
rollback_criteria: {max_safety_violations: 0, max_error_increase: null, max_completion_drop: null, max_latency_increase: null}
canary_stages:
  - {name: some, weight: 0.1, duration: 4s, min_requests: 20}
  - {name: half, weight: 0.5, duration: 4s, min_requests: 50}
  - {name: all, weight: 1.0}
`)
				w.watched("support-agent")
				w.killSecond(users)
				w.until("support-agent", "half", func(s rollout.Status) bool { return s.Stage == "half" && s.Phase == rollout.Observing })
				w.round(users)
				if end == rollout.RolledBack {
					if told := users.Report().Migrated; told > 0 {
						t.Errorf("%d conversations were moved before the rollback", told)
					}
					w.signal("support-agent", rollout.SignalViolation)
				}
				w.until("support-agent", string(end), func(s rollout.Status) bool { return s.Phase == end })
				if end == rollout.RolledBack {
					users.Forbid("v42")
				}
				w.round(users)
				w.round(users)
			})
			for _, s := range append(report.Switched, report.Late...) {
				t.Error(s)
			}
			if (report.Migrated > 0) != (end == rollout.RolledBack) {
				t.Errorf("%d conversations were moved", report.Migrated)
			}
			if report.Begun["v42"] < 20 || report.Retried == 0 {
				t.Errorf("%d conversations began on the canary, %d turns met the killed replica: this shows nothing", report.Begun["v42"], report.Retried)
			}
			t.Logf("%d conversations, %d on the canary; %d turns, %d moved, %d sent again", report.Conversations,
				report.Begun["v42"], report.Turns, report.Migrated, report.Retried)
		})
	}
}

// talk runs the crowd during fn, and returns what it saw.
func (w *world) talk(users *crowd.Crowd, fn func()) crowd.Report {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- users.Run(ctx) }()
	fn()
	cancel()
	if err := <-ended; err != nil {
		w.t.Error(err)
	}
	return users.Report()
}

// round waits until every conversation has had a turn that began after the call.
func (w *world) round(users *crowd.Crowd) {
	w.t.Helper()
	want := users.Report().Turns + users.Conversations + 2*users.Talkers
	w.eventually("a round of turns", func() error {
		if n := users.Report().Turns; n < want {
			return fmt.Errorf("%d turns, want %d", n, want)
		}
		return nil
	})
}

// killSecond kills the second replica as a machine dies, and starts it again where it was once users have noticed.
func (w *world) killSecond(users *crowd.Crowd) {
	w.t.Helper()
	proxy, admin := w.second.Proxy, w.second.Admin
	w.second.Kill()
	w.eventually("a turn that meets the dead replica", func() error {
		if users.Report().Retried == 0 {
			return errors.New("none did")
		}
		return nil
	})
	w.writeReplicaSettings("gateway-2", proxy, admin)
	w.startSecond()
}
