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
