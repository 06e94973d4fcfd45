package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
)

// leastHeap is how large the heap may grow before garbage is collected, in bytes. A gateway's own heap is small and its garbage is
// not: by Go's rule (twice what lives) a tenth of its time would go into collecting.
const leastHeap = 64 << 20

// mostGOGC bounds the percentage of growth.
const mostGOGC = 800

// heapTuner sets the garbage collector's pace by what lives. One that the environment sets (GOGC, GOMEMLIMIT) is left alone.
type heapTuner struct {
	sample  []metrics.Sample
	percent int
}

func newHeapTuner() *heapTuner {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	return &heapTuner{sample: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}, percent: 100}
}

// tune looks at what lived after the last collection. Call it a few times a second.
func (t *heapTuner) tune() {
	if t == nil {
		return
	}
	metrics.Read(t.sample)
	if t.sample[0].Value.Kind() != metrics.KindUint64 {
		return
	}
	percent := growth(t.sample[0].Value.Uint64())
	if d := percent - t.percent; d > t.percent/4 || -d > t.percent/4 { // setting it stops the world for a moment
		t.percent = percent
		debug.SetGCPercent(percent)
	}
}

// growth is the percentage by which a heap of so many live bytes may grow.
func growth(live uint64) int {
	if live >= leastHeap/2 {
		return 100
	}
	return int(min(mostGOGC, (leastHeap-live)*100/max(live, 1)))
}
