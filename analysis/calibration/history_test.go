package calibration

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/analysis"
)

func TestBuilderKeepsTheTimeThatTheVersionWasThere(t *testing.T) {
	t.Parallel()
	b := NewBuilder(presets(t, "error_rate"), began, began.Add(1000*time.Minute), time.Minute, Whole)
	at := func(minutes float64) time.Time { return began.Add(time.Duration(minutes * float64(time.Minute))) }
	b.Add(at(600), "", "error_rate", 10, 1) // the end of a poll belongs to it
	b.Add(at(600.5), "", "error_rate", 20, 2)
	b.Add(at(700), "", "error_rate", 30, 3)
	b.Add(at(0), "", "error_rate", 99, 0) // before the first poll
	b.Add(at(1001), "", "error_rate", 99, 0)
	b.Add(at(650), "", "another", 99, 0)
	h := b.History()
	if h.Polls != 101 || !h.From.Equal(at(599)) || h.LeftOut != 2 {
		t.Fatalf("%d polls from %s, %d left out; want 101 from %s and 2", h.Polls, h.From, h.LeftOut, at(599))
	}
	var got []float64
	for _, p := range []int{0, 1, 2, 99, 100} {
		got = append(got, h.Units[0].Metrics[0].N.At(p))
	}
	if diff := cmp.Diff([]float64{10, 20, 0, 0, 30}, got); diff != "" {
		t.Errorf("trials (-want +got):\n%s", diff)
	}
}

// Buckets that only some of the time has are joined with the next ones: no observation is lost or moved down.
func TestBuilderJoinsBucketsThatCameLater(t *testing.T) {
	t.Parallel()
	b := NewBuilder(presets(t, "p95_latency"), began, began.Add(100*time.Minute), time.Minute, Whole)
	for p := range 100 {
		at := began.Add(time.Duration(p+1) * time.Minute)
		b.AddBucket(at, "", "p95_latency", 1, 5)
		if p >= 50 {
			b.AddBucket(at, "", "p95_latency", 2, 8)
		}
		b.AddBucket(at, "", "p95_latency", 4, 9)
		b.AddBucket(at, "", "p95_latency", inf, 10)
	}
	c := &b.History().Units[0].Metrics[0]
	if diff := cmp.Diff([]float64{1, 4}, c.Bounds); diff != "" {
		t.Fatalf("bounds (-want +got):\n%s", diff)
	}
	for _, p := range []int{0, 99} {
		if got := []float64{c.Buckets[0].At(p), c.Buckets[1].At(p), c.Buckets[2].At(p), c.N.At(p)}; !cmp.Equal(got, []float64{5, 4, 1, 10}) {
			t.Errorf("poll %d has %v, want 5, 4, 1 and 10 in all", p, got)
		}
	}
}

// An outage that would have frozen the rollout says nothing of what is natural.
func TestFrozenTimeIsLeftOut(t *testing.T) {
	t.Parallel()
	metrics := presets(t, "error_rate")
	calm := synth{seed: 3, days: 2, step: 15 * time.Second, rps: 10, errors: 0.01}.history()
	b := NewBuilder(metrics, began, began.Add(calm.Span()), calm.Step, Whole)
	for p := range calm.Polls {
		n, x := calm.Units[0].Metrics[0].N.At(p), calm.Units[0].Metrics[0].X.At(p)
		if p%2000 < 60 { // a quarter of an hour, half of it fails
			x = n / 2
		}
		b.Add(began.Add(time.Duration(p+1)*calm.Step), "", "error_rate", n, x)
	}
	h := b.History()
	r := day(t, metrics, "error_rate_increase < 0.10")
	without := h.dispersion(0, nil) // of one unit nothing is random
	c := &calibration{History: h, out: &Result{By: Whole, Metrics: []Metric{{Name: "error_rate", Base: &without.Phi, Phi: &without.Phi}}}, rollout: r}
	if c.warn(); !strings.Contains(strings.Join(c.out.Warnings, "\n"), "name them in freeze_when, or tell units apart") {
		t.Errorf("warnings %q, want one of the outages", c.out.Warnings)
	}
	freeze, err := analysis.ParseCondition("stable.error_rate > 0.20")
	if err != nil {
		t.Fatal(err)
	}
	r.Config.FreezeWhen = []analysis.Condition{freeze}
	with := calibrate(t, h, r)
	if before, after := without.Phi, with.Overdispersion["error_rate"]; before < 5 || after > 2 {
		t.Errorf("φ is %v with outages, %v without, want the outages to be left out", before, after)
	}
	if with.Frozen < 0.02 || with.Frozen > 0.05 {
		t.Errorf("frozen for %v of the time, want about 0.03", with.Frozen)
	}
}
