package calibration

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// Each block's φ is a mean of about χ² variables over its true value: it stays within 4·√(2/draws), but for bursts, whose fourth moment is larger.
func TestDispersion(t *testing.T) {
	t.Parallel()
	day := synth{seed: 1, days: 14, step: 15 * time.Second, rps: 5, errors: 0.01}
	with := func(change func(*synth)) synth {
		s := day
		change(&s)
		return s
	}
	for _, tt := range []struct {
		name  string
		s     synth
		split string
		want  float64
		slack float64 // of every block's φ, relative, beside sampling
	}{
		{"independent", day, SplitSlots, 1, 0.02},
		{"independent, by day and night", with(func(s *synth) { s.rps, s.diurnal = 20, 0.5 }), SplitSlots, 1, 0.05},
		{"independent, of four instances", with(func(s *synth) { s.by, s.units = Instances, 4 }), SplitUnits, 1, 0.02},
		{"bursts of 5", with(func(s *synth) { s.burst = 5 }), SplitSlots, 9, 0.10},
		{"bursts of 5 on four instances", with(func(s *synth) { s.by, s.units, s.burst = Instances, 4, 5 }), SplitUnits, 9, 0.10},
		{"failures", with(func(s *synth) { s.metrics, s.errors = []string{"task_completion_rate"}, 0.10 }), SplitSlots, 0.9, 0.02},
		{"means", with(func(s *synth) { s.metrics = []string{"cost_per_task"} }), SplitSlots, 1, 0.02},
		{"quantiles", with(func(s *synth) { s.metrics, s.bounds, s.rps = []string{"p95_latency"}, fine(), 2 }), SplitSlots, 0.95, 0.05},
		{"users who differ", with(func(s *synth) { s.by, s.units, s.spread, s.days, s.step = Users, 300, 1, 4, time.Minute }), SplitUnits, 1, 0.06},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := tt.s.history()
			d := h.dispersion(0, rand.New(rand.NewPCG(1, 1)))
			if d.Split != tt.split || len(d.Blocks) < 3 {
				t.Fatalf("split by %s into %d lengths of blocks, want %s and at least 3", d.Split, len(d.Blocks), tt.split)
			}
			largest := 0.0
			for _, b := range d.Blocks {
				t.Logf("%v s: φ %.3f of %d draws, at most %.3f", b.Seconds, b.Phi, b.Draws, b.Upper)
				largest = max(largest, b.Upper)
				short := b.Seconds == 60 && tt.want > 2 // a block with a single burst says how large that was, no more
				if off := math.Abs(b.Phi/tt.want - 1); !short && off > tt.slack+5*math.Sqrt(2/float64(b.Draws)) {
					t.Errorf("blocks of %v s say φ = %.3f, want about %.2f", b.Seconds, b.Phi, tt.want)
				}
			}
			if d.Phi != max(1, largest) {
				t.Errorf("φ = %v, want the largest of the blocks, %v, and at least 1", d.Phi, largest)
			}
		})
	}
}

// Bursts of one user that a load balancer spreads over instances are no chance between instances, but are between versions.
func TestDispersionOfScatteredBursts(t *testing.T) {
	t.Parallel()
	h := synth{seed: 2, days: 7, step: 30 * time.Second, rps: 10, errors: 0.01, by: Instances, units: 4, burst: 5, scatter: true}.history()
	d := h.dispersion(0, rand.New(rand.NewPCG(1, 1)))
	if d.Phi < 7 || d.Phi > 11 {
		t.Errorf("φ = %v, want about 9: %+v", d.Phi, d.Blocks)
	}
	for _, b := range d.Blocks {
		if b.Seconds == 6*3600 && (b.Phi < 0.8 || b.Phi > 1.2) {
			t.Errorf("split by instances φ = %v, want about 1: the test's bursts are not scattered", b.Phi)
		}
	}
}
