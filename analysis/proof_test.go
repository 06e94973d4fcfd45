package analysis

import (
	"math/rand/v2"
	"testing"
)

func TestProof(t *testing.T) {
	t.Parallel()
	cfg := settings(Sequential, checks(t, RoleStage, 0, "error_rate_increase < 0.50")...)
	cfg.Advance, cfg.Floor = AdvanceProof, 0
	for _, tt := range []struct {
		name    string
		canaryP float64
		want    bool
	}{{"identical", 0.05, true}, {"slightly beyond the limit", 0.08, false}} {
		e := engine(t, cfg)
		e.BeginStage(0, 5000)
		w := &world{r: rand.New(rand.NewPCG(14, 1)), perPoll: 200, stableP: 0.05, canaryP: tt.canaryP}
		polls := 0
		for ; polls < 300 && e.Evaluate(0, 1).Gate != Met; polls++ {
			e.Observe(w.poll(5000))
		}
		r := e.Evaluate(0, 1)
		if (r.Gate == Met) != tt.want || polls < 3 {
			t.Errorf("%s: %s after %d polls, met is to be %t", tt.name, r.Gate, polls, tt.want)
		}
	}
	cfg.Checks = checks(t, RoleStage, 0, "queue_depth < 3")
	if _, err := New(cfg); !errorIs(err, "can't be had for a plain value") {
		t.Errorf("error %v, want one about plain values", err)
	}
}

// At the limit, proof is claimed with a chance of at most beta.
func TestFalseProofs(t *testing.T) {
	t.Parallel()
	cfg := settings(Sequential, checks(t, RoleStage, 0, "error_rate_increase < 0.50")...)
	cfg.Advance, cfg.Floor = AdvanceProof, 0
	const runs = 300
	claimed := 0
	for i := range runs {
		e := engine(t, cfg)
		e.BeginStage(0, 5000)
		w := &world{r: rand.New(rand.NewPCG(15, uint64(i))), perPoll: 200, stableP: 0.05, canaryP: 0.075}
		for range 300 {
			e.Observe(w.poll(5000))
		}
		if e.tests[0].proven {
			claimed++
		}
	}
	if tail := binomialTail(runs, claimed, cfg.Beta); tail < 1e-4 {
		t.Errorf("%d of %d were claimed, too many at beta %g", claimed, runs, cfg.Beta)
	}
	t.Logf("%d of %d were claimed at the limit", claimed, runs)
}
