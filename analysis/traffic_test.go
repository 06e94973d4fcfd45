package analysis

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// trafficPoll is a poll in which the canary gets a share of new conversations, each of some requests.
func trafficPoll(r *rand.Rand, n int64, weight int, share, conversations, each float64, counted bool) Poll {
	begun := poisson(r, conversations)
	canary := binomial(r, begun, share)
	p := Poll{Number: n, Weight: weight, Requests: Requests{Stable: each * (begun - canary), Canary: each * canary}}
	if counted {
		p.Conversations = Requests{Stable: begun - canary, Canary: canary}
	}
	return p
}

// mismatchAfter is the poll at which a share of traffic is found to contradict the weight, or -1.
func mismatchAfter(t *testing.T, seed uint64, weight int, share float64, counted bool, polls int64) int64 {
	t.Helper()
	e, r := engine(t, settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10")...)), rand.New(rand.NewPCG(81, seed))
	e.BeginStage(0, weight)
	for n := range polls {
		e.Observe(trafficPoll(r, n, weight, share, 30, 5, counted))
		if e.Peek(0, 1).Mismatch != "" {
			return n
		}
	}
	return -1
}

func TestMismatch(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		weight  int
		share   float64
		counted bool
		within  int64 // polls; 0: never
	}{
		{"as it should be", 500, 0.05, true, 0}, {"as it should be, by requests", 500, 0.05, false, 0},
		{"a little off", 500, 0.052, true, 0}, {"half", 5000, 0.5, true, 0}, {"half, by requests", 5000, 0.5, false, 0},
		{"twice", 500, 0.1, true, 60}, {"twice, by requests", 500, 0.1, false, 400},
		{"nothing", 500, 0, true, 40}, {"half of it", 1000, 0.05, true, 100}, {"everything", 500, 1, true, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(20) {
				at := mismatchAfter(t, seed, tt.weight, tt.share, tt.counted, 1000)
				if (tt.within == 0) != (at < 0) || at > tt.within {
					t.Errorf("seed %d: found at poll %d, want within %d", seed, at, tt.within)
				}
			}
		})
	}
}

// A mismatch keeps the stage from being passed, says what is wrong, survives a crash, and ends when the share is right again.
func TestMismatchHoldsAndEnds(t *testing.T) {
	t.Parallel()
	cfg := settings(Sequential, checks(t, RolePromotion, EveryStage, "total_requests >= 10")...)
	e, r := engine(t, cfg), rand.New(rand.NewPCG(82, 1))
	e.BeginStage(0, 1000)
	n := int64(0)
	for ; e.Peek(0, 1).Mismatch == ""; n++ {
		e.Observe(trafficPoll(r, n, 1000, 0.3, 30, 1, true))
	}
	report := e.Evaluate(0, 1)
	if report.Gate != Undecided || report.Verdict == Violated || !strings.Contains(report.Mismatch, "new conversations lately at a weight of 10 %") {
		t.Errorf("the gate is %s, the verdict %s, the mismatch %q", report.Gate, report.Verdict, report.Mismatch)
	}
	raw, err := e.State()
	if err != nil {
		t.Fatal(err)
	}
	e = engine(t, cfg)
	if err := e.Restore(raw); err != nil {
		t.Fatal(err)
	}
	if got := e.Evaluate(0, 1).Mismatch; got != report.Mismatch {
		t.Errorf("after a restart the mismatch is %q, want %q", got, report.Mismatch)
	}
	for end := n + 400; n < end && e.Peek(0, 1).Mismatch != ""; n++ {
		e.Observe(trafficPoll(r, n, 1000, 0.1, 30, 1, true))
	}
	if report := e.Evaluate(0, 1); report.Mismatch != "" || report.Gate != Met {
		t.Errorf("the share is right again, and the gate is %s, the mismatch %q", report.Gate, report.Mismatch)
	}
	e.Observe(trafficPoll(r, n, 1000, 0.1, 0, 1, true)) // nobody came
	if report := e.Evaluate(0, 1); report.Mismatch != "" {
		t.Errorf("a poll without traffic is a mismatch: %q", report.Mismatch)
	}
}
