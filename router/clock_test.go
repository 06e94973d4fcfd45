package router

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestSystemClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newSystemClock()
		start := time.Now()
		check := func(step string) {
			t.Helper()
			if age := time.Since(start) - c.Mono(); age < 0 || age > clockTick {
				t.Errorf("%s: the clock is %s behind, want at most %s", step, age, clockTick)
			}
			if age := time.Since(c.Wall()); age < 0 || age > clockTick {
				t.Errorf("%s: the wall clock is %s behind, want at most %s", step, age, clockTick)
			}
		}
		runs := func(want bool) {
			t.Helper()
			synctest.Wait()
			if got := c.state.Load(); (got != clockIdle) != want {
				t.Errorf("the clock is in state %d, want it to run: %t", got, want)
			}
		}
		runs(false)
		check("first")
		runs(true)
		for range 1000 {
			time.Sleep(clockTick / 3)
			check("while it is read")
		}
		time.Sleep(2 * idleTicks * clockTick)
		runs(false)
		time.Sleep(time.Hour)
		check("after a pause")
		runs(true)
		time.Sleep(idleTicks * clockTick / 2)
		check("after half a pause")
		runs(true)
		time.Sleep(2 * idleTicks * clockTick)
		runs(false) // nothing is left behind, or the bubble would complain
	})
}

func TestSystemClockStartsOnceForMany(t *testing.T) {
	t.Parallel()
	for range 200 {
		c := newSystemClock()
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				before := time.Since(c.start)
				mono := c.Mono()
				// It may be a tick behind, and as much as the scheduler let it be; a clock that never ran would be at 0.
				if mono > time.Since(c.start) || before-mono > 10*time.Second || c.Wall().Year() < 2000 {
					t.Errorf("mono %s at %s, wall %s", mono, before, c.Wall())
				}
			})
		}
		group.Wait()
	}
}
