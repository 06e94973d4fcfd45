package workflows

import (
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/aviary-rollouts/aviary/rollout"
)

func TestRestoreParkedThenRetried(t *testing.T) {
	t.Parallel()
	for name, fails := range map[string]error{
		"refused each time": broken(rollout.ErrDriver),
		"never reachable":   temporal.NewApplicationError("no route to host", rollout.ErrDriver),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			began := w.env.Now()
			mended := began.Add(3 * time.Hour)
			w.take[rollout.TaskRestore] = func(int) (time.Duration, error) {
				if w.env.Now().Before(mended) {
					return 0, fails
				}
				return 0, nil
			}
			w.signal(10*time.Minute, rollout.SignalAbort, nil)
			w.at(time.Hour, func() {
				if s := w.status(); s.Phase != rollout.RestoreBlocked || s.Outcome != rollout.Aborted {
					t.Errorf("after an hour %s for %s", s.Phase, s.Outcome)
				}
			})
			w.signal(3*time.Hour, rollout.SignalRetry, map[string]any{"by": "ada"})
			w.run(spec())
			got := w.result()
			if got.Phase != rollout.Aborted || !got.Ended.Equal(mended) {
				t.Errorf("%s at %s, want aborted at %s", got.Phase, got.Ended, mended)
			}
			if w.tries["Restore"] < 20 {
				t.Errorf("%d tries in three hours", w.tries["Restore"])
			}
			restored(t, w)
		})
	}
}

func TestRestoreComesBackByItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mended := w.env.Now().Add(3 * time.Hour)
	w.take[rollout.TaskRestore] = func(int) (time.Duration, error) {
		if w.env.Now().Before(mended) {
			return 0, broken(rollout.ErrDriver)
		}
		return 0, nil
	}
	w.signal(10*time.Minute, rollout.SignalAbort, nil)
	w.run(spec())
	if got := w.result(); got.Phase != rollout.Aborted || got.Ended.Sub(mended) > 2*time.Minute {
		t.Errorf("%s, %s after the data plane was back", got.Phase, got.Ended.Sub(mended))
	}
}
