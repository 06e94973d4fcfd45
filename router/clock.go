package router

import (
	"sync/atomic"
	"time"
)

// Clock tells a router the time. Leases and deadlines run on Mono, which nobody can set; expiries that other machines read run
// on Wall.
type Clock interface {
	Wall() time.Time
	Mono() time.Duration // since some fixed moment; never goes back
}

// A systemClock that is read burstReads times within burstWindow ticks for burstTicks; then it counts again. Below that rate it
// costs less to read the machine's clock each time than to wake the process a thousand times a second.
const (
	clockTick   = time.Millisecond // how old the time may be while it ticks
	burstReads  = 5000
	burstWindow = 10 * time.Millisecond
	burstTicks  = 200
)

// The states of a systemClock.
const (
	clockStands = iota // every reader reads the machine's clock
	clockStarts        // one of them is about to make it tick
	clockTicks
)

// systemClock is the machine's clock. While it is asked very often it is read once a tick: reading it costs more than all the
// rest of a decision. A lease may so be seen to end a tick late, or as late as the scheduler lets the goroutine be that ticks.
// That one ends by itself: there is nothing to close.
type systemClock struct {
	start time.Time
	state atomic.Uint32
	mono  atomic.Int64 // nanoseconds since start, as of the last tick
	wall  atomic.Int64 // nanoseconds since 1970, as of the last tick

	reads atomic.Int64 // while it stands
	since atomic.Int64 // nanoseconds after start when reads began
}

func newSystemClock() *systemClock { return &systemClock{start: time.Now()} }

// Wall is the time of the day, up to a tick old.
func (c *systemClock) Wall() time.Time {
	// The state comes first: what is loaded then is no older than the call, whatever the clock does meanwhile.
	if c.state.Load() == clockTicks {
		return time.Unix(0, c.wall.Load())
	}
	now := time.Now()
	c.count(now.Sub(c.start))
	return now
}

// Mono is the time since the clock was made, up to a tick old; so it may seem to go back, by no more than a tick.
func (c *systemClock) Mono() time.Duration {
	if c.state.Load() == clockTicks {
		return time.Duration(c.mono.Load())
	}
	now := time.Since(c.start)
	c.count(now)
	return now
}

// count notes a reading of a clock that stands, and makes it tick if there are many.
func (c *systemClock) count(now time.Duration) {
	if c.reads.Add(1) < burstReads || !c.state.CompareAndSwap(clockStands, clockStarts) {
		return
	}
	c.reads.Store(0)
	if now-time.Duration(c.since.Swap(int64(now))) > burstWindow {
		c.state.Store(clockStands)
		return
	}
	c.set()
	c.state.Store(clockTicks)
	go c.run()
}

func (c *systemClock) set() {
	now := time.Now()
	c.mono.Store(int64(now.Sub(c.start)))
	c.wall.Store(now.UnixNano())
}

// run ticks for a while.
func (c *systemClock) run() {
	ticker := time.NewTicker(clockTick)
	defer ticker.Stop()
	for range burstTicks {
		<-ticker.C
		c.set()
	}
	c.since.Store(c.mono.Load())
	c.state.Store(clockStands)
}

// Now is the wall time by the router's clock.
func (r *Router) Now() time.Time { return r.clock.Wall() }
