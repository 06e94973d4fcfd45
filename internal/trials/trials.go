// Package trials lets rules judge made-up canaries whose truth is known: Aviary's own analysis, through what it exports, and the rules of
// other tools, written from their published descriptions, on the same streams of polls.
package trials

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/world"
)

// Options say how much is tried.
type Options struct {
	Weeks   int    // simulated weeks per setting where error rates are measured, above 0
	Runs    int    // rollouts per setting elsewhere, above 0
	Seed    uint64 // the same seed gives the same results, whatever the number of workers
	Workers int    // that simulate at once; 0 for one per processor
	// Progress is told what is tried, and how many of its rollouts are done, after each of them and by one goroutine at a time. It may be nil.
	Progress func(what string, done, of int)
}

// The rhythm of all trials.
const (
	step = 15 * time.Second // a poll
	hour = time.Hour
	day  = 24 * hour
	week = 7 * day
)

// never is the time of what did not happen.
const never = time.Duration(math.MaxInt64)

// Rule decides from what was counted whether the canary is taken back.
type Rule interface {
	// Poll takes in one poll of a stage, which ended at a time since the start, and reports whether the canary is to be rolled back. It
	// keeps nothing of p.
	Poll(p analysis.Poll, stage int, at time.Duration) bool
}

// stage is a part of a rollout.
type stage struct {
	weight int // of the canary, in basis points
	length time.Duration
}

// small is the weight of a canary that stays small, in basis points.
const small = 500

// outcome is when a rule rolled back, or never, and after how many canary requests.
type outcome struct {
	at       time.Duration
	requests float64
}

// watch lets rules see a rollout, each until it rolls back. The same rng gives the same polls whatever the rules. With loss, that share of
// polls never arrives.
func watch(w *world.World, stages []stage, loss float64, rng *rand.Rand, rules ...Rule) []outcome {
	out := make([]outcome, len(rules))
	for i := range out {
		out[i].at = never
	}
	var from time.Duration
	var number int64
	left := len(rules)
	stream := w.Stream(rng)
	for i, s := range stages {
		for end := from + s.length; from < end && left > 0; from += step {
			number++
			p := stream.Poll(number, from, from+step, s.weight)
			if loss > 0 && rng.Float64() < loss {
				continue
			}
			left -= show(p, i, from+step, rules, out)
		}
	}
	return out
}

// show shows a poll to the rules that did not roll back before, and says how many did now.
func show(p analysis.Poll, stage int, at time.Duration, rules []Rule, out []outcome) (fired int) {
	for r, rule := range rules {
		if out[r].at != never {
			continue
		}
		out[r].requests += p.Requests.Canary
		if rule.Poll(p, stage, at) {
			out[r].at = at
			fired++
		}
	}
	return fired
}

// each calls f for 0 to n−1, from several goroutines at once, each with random numbers of its own that follow from the seed, what is tried
// and the number.
func (o Options) each(what string, n int, f func(i int, rng *rand.Rand)) {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", o.Seed, what)
	seed := h.Sum64()
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var next atomic.Int64
	var telling sync.Mutex
	done := 0
	var all sync.WaitGroup
	for range min(workers, n) {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				f(int(i), rand.New(rand.NewPCG(seed, uint64(i)))) //nolint:gosec // made-up traffic that a seed gives again
				telling.Lock()
				done++
				if o.Progress != nil {
					o.Progress(what, done, n)
				}
				telling.Unlock()
			}
		})
	}
	all.Wait()
}

// must is for settings that this package writes itself: they are right, or nothing it prints would be.
func must[T any](x T, err error) T {
	if err != nil {
		panic(fmt.Errorf("trials: set up: %w", err))
	}
	return x
}
