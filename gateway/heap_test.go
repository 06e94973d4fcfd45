package main

import "testing"

func TestGrowth(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		live uint64
		want int
	}{{0, mostGOGC}, {1 << 20, mostGOGC}, {16 << 20, 300}, {32 << 20, 100}, {1 << 30, 100}} {
		if got := growth(tt.live); got != tt.want {
			t.Errorf("with %d MiB live: %d %%, want %d %%", tt.live>>20, got, tt.want)
		}
	}
}

func TestHeapTunerLeavesTheEnvironmentAlone(t *testing.T) {
	t.Setenv("GOGC", "50")
	if newHeapTuner() != nil {
		t.Error("GOGC was set, and the tuner is there")
	}
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "1GiB")
	if newHeapTuner() != nil {
		t.Error("GOMEMLIMIT was set, and the tuner is there")
	}
}

// TestRest: memory is given back once when the gateway falls idle, and not again before there is something to give.
func TestRest(t *testing.T) {
	t.Parallel()
	rests := 0
	h := &heapTuner{rest: func() { rests++ }}
	total := uint64(0)
	for i, step := range []struct {
		allocated uint64 // since the look before
		want      int    // rests so far
	}{
		{100 << 20, 0}, {50 << 20, 0}, // busy
		{1 << 10, 0}, {1 << 10, 1}, {1 << 10, 1}, {0, 1}, // idle
		{1 << 20, 1}, {0, 1}, {0, 1}, // a request or two
		{20 << 20, 1}, {0, 1}, {0, 2}, {0, 2}, // busy again, and idle
	} {
		total += step.allocated
		h.look(total)
		if rests != step.want {
			t.Errorf("look %d: %d rests, want %d", i, rests, step.want)
		}
	}
}
