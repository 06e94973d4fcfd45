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

// A gateway whose streams are idle gives memory back: after restAfter looks in a row with less than restBelow bytes allocated, once, and then again only when
// restAgain bytes have been allocated since.
const (
	restAfter = 2
	restBelow = 256 << 10
	restAgain = 8 << 20
)

// heapTuner sets the garbage collector's pace by what lives. One that the environment sets (GOGC, GOMEMLIMIT) is left alone.
type heapTuner struct {
	sample  []metrics.Sample
	percent int

	allocated uint64 // in all, at the last look
	rested    uint64 // in all, when memory was last given back
	quiet     int    // looks in a row
	rest      func() // gives memory back
}

func newHeapTuner() *heapTuner {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	return &heapTuner{
		sample: []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}, percent: 100, rest: func() { go debug.FreeOSMemory() },
	}
}

// tune looks at what lived after the last collection. Call it a few times a second.
func (t *heapTuner) tune() {
	if t == nil {
		return
	}
	metrics.Read(t.sample)
	if t.sample[0].Value.Kind() != metrics.KindUint64 || t.sample[1].Value.Kind() != metrics.KindUint64 {
		return
	}
	t.look(t.sample[1].Value.Uint64())
	percent := growth(t.sample[0].Value.Uint64())
	if d := percent - t.percent; d > t.percent/4 || -d > t.percent/4 { // setting it stops the world for a moment
		t.percent = percent
		debug.SetGCPercent(percent)
	}
}

// look notes what has been allocated in all, and gives memory back when next to nothing is any more.
func (t *heapTuner) look(allocated uint64) {
	t.quiet++
	if allocated-t.allocated > restBelow {
		t.quiet = 0
	}
	t.allocated = allocated
	if t.quiet == restAfter && allocated-t.rested > restAgain {
		t.rested = allocated
		t.rest()
	}
}

// growth is the percentage by which a heap of so many live bytes may grow.
func growth(live uint64) int {
	if live >= leastHeap/2 {
		return 100
	}
	return int(min(mostGOGC, (leastHeap-live)*100/max(live, 1)))
}
