package prometheus

import (
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/aviary-rollouts/aviary/rollout"
)

// TestConversationsOfBothOrNone: a share can only be judged where both versions are counted. An agent of which one build counts its
// conversations and the other does not would look like one that got all of them.
func TestConversationsOfBothOrNone(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	now := t0
	p := newProvider(t, st, func() time.Time { return time.UnixMilli(now) })
	r := defined("jobs", rollout.Definition{Kind: "count", Events: "jobs", Trials: "jobs"})
	scrape := func(name, version string, value float64) {
		st.add(model.Metric{"__name__": model.LabelValue(name), "instance": "x", "agent": "a", "version": model.LabelValue(version)}, now, value, true)
	}
	for i, tt := range []struct {
		v1, v2 float64 // counters; below 0: none
		want   rollout.Requests
	}{
		{-1, -1, rollout.Requests{}},
		{-1, -1, rollout.Requests{}}, // absent for both
		{100, -1, rollout.Requests{}},
		{130, 0, rollout.Requests{Stable: 30}}, // the canary's begins at zero: nobody comes to it
		{160, 4, rollout.Requests{Stable: 30, Canary: 4}},
	} {
		now += 10_000
		scrape("jobs", "v1", float64(i))
		scrape("jobs", "v2", float64(i))
		if tt.v1 >= 0 {
			scrape(conversations, "v1", tt.v1)
		}
		if tt.v2 >= 0 {
			scrape(conversations, "v2", tt.v2)
		}
		now += 3000 // the poll comes after the scrape
		got, err := p.Sample(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if got.Conversations != tt.want {
			t.Errorf("poll %d: %+v, want %+v", i, got.Conversations, tt.want)
		}
		if got.Behind != 3*time.Second {
			t.Errorf("poll %d: %s behind, want 3s", i, got.Behind)
		}
		r.Cursor = got.Cursor
	}
}
