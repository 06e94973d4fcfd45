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
		check := func(step string, most time.Duration) {
			t.Helper()
			if age := time.Since(start) - c.Mono(); age < 0 || age > most {
				t.Errorf("%s: the clock is %s behind, want at most %s", step, age, most)
			}
			if age := time.Since(c.Wall()); age < 0 || age > most {
				t.Errorf("%s: the wall clock is %s behind, want at most %s", step, age, most)
			}
		}
		ticks := func(step string, want bool) {
			t.Helper()
			synctest.Wait()
			if got := c.state.Load() == clockTicks; got != want {
				t.Errorf("%s: the clock ticks: %t, want %t", step, got, want)
			}
		}
		for range 3 * burstReads { // read now and then
			time.Sleep(burstWindow / 1000)
			check("now and then", 0)
		}
		ticks("now and then", false)
		time.Sleep(time.Hour)
		for range burstReads {
			check("after a pause", 0)
		}
		ticks("after a pause", true)
		for range burstTicks / 2 * 3 {
			time.Sleep(clockTick / 3)
			check("while it is read often", clockTick)
		}
		ticks("while it is read often", true)
		time.Sleep(burstTicks * clockTick)
		ticks("after the burst", false) // nothing is left behind, or the bubble would complain
		check("after the burst", 0)
	})
}

func TestSystemClockOfMany(t *testing.T) {
	t.Parallel()
	for range 20 {
		c := newSystemClock()
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for range burstReads {
					before := time.Since(c.start)
					mono := c.Mono()
					// It may be a tick behind, and as much as the scheduler let it be; one that does not tick would be at 0.
					if mono > time.Since(c.start) || before-mono > time.Minute || mono == 0 || c.Wall().Year() < 2000 {
						t.Errorf("mono %s at %s, wall %s", mono, before, c.Wall())
						return
					}
				}
			})
		}
		group.Wait()
	}
}
