package workflows

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/temporal"

	"github.com/aviary-rollouts/aviary/rollout"
)

func TestNoticesInOrderAndInOneThread(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(spec())
	var kinds []string
	for i, n := range w.notices {
		kinds = append(kinds, string(n.Decision.Kind))
		if want := fmt.Sprintf("%s/%d", n.Owner, i+1); n.ID != want {
			t.Errorf("notice %d is %s, want %s", i, n.ID, want)
		}
		want := fmt.Sprintf(`{"posts":%d}`, i)
		if i == 0 {
			want = ""
		}
		if w.threads[i] != want {
			t.Errorf("notice %d went to thread %q, want %q", i, w.threads[i], want)
		}
	}
	if kinds[0] != "start" || kinds[len(kinds)-1] != "end" {
		t.Errorf("told %q", kinds)
	}
}

func TestNotifierNeverGates(t *testing.T) {
	t.Parallel()
	down := temporal.NewApplicationError("no answer", "NotifierError")
	for name, row := range map[string]struct {
		notify func(int) (time.Duration, error)
		linger time.Duration
	}{
		"down":   {always(0, down), noticeWait},
		"silent": {always(never, nil), noticeWait},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.notify = row.notify
			began := w.env.Now()
			w.run(spec())
			got := w.result()
			if took := got.Ended.Sub(began); got.Phase != rollout.Promoted || took != time.Hour {
				t.Errorf("%s after %s, want promoted after an hour", got.Phase, took)
			}
			if linger := w.env.Now().Sub(got.Ended); linger > row.linger {
				t.Errorf("lingered for %s, want at most %s", linger, row.linger)
			}
		})
	}
}

func TestThreadSurvivesAFailedNotice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.notify = func(try int) (time.Duration, error) {
		if try == 2 {
			return 0, temporal.NewNonRetryableApplicationError("channel not found", "NotifierError", nil)
		}
		return 0, nil
	}
	w.run(spec())
	if d := cmp.Diff([]string{"", `{"posts":1}`}, w.threads[:2]); d != "" {
		t.Errorf("threads (-want +got):\n%s", d)
	}
}

func TestTooManyNotices(t *testing.T) {
	t.Parallel()
	var n notices
	for i := range maxNotices + 10 {
		urgency := rollout.Alert
		if i%2 == 0 {
			urgency = rollout.Info
		}
		n.add(rollout.Notice{ID: fmt.Sprint(i), Urgency: urgency})
	}
	has := func(id string) bool {
		return slices.ContainsFunc(n.queue, func(q rollout.Notice) bool { return q.ID == id })
	}
	if len(n.queue) != maxNotices || n.queue[0].ID != "0" || !has("1") || !has("3") || has("2") || has("20") || !has("22") {
		t.Errorf("%d left, first %s", len(n.queue), n.queue[0].ID)
	}
	for i := range maxNotices {
		n.add(rollout.Notice{ID: fmt.Sprint("alert", i), Urgency: rollout.Alert})
	}
	if len(n.queue) != maxNotices || n.queue[0].ID != "0" || !has(fmt.Sprint("alert", maxNotices-1)) {
		t.Errorf("%d left, first %s, last %s", len(n.queue), n.queue[0].ID, n.queue[len(n.queue)-1].ID)
	}
}
