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

// clockTick is how old the time of a systemClock may be.
const clockTick = time.Millisecond

// idleTicks is after how many ticks without a reader a systemClock stops.
const idleTicks = 250

// The states of a systemClock.
const (
	clockIdle     = iota // nothing runs: read the machine's clock
	clockStarting        // a reader starts it; the others read the machine's clock
	clockUnread          // it ticks, and nobody has read it since the last tick
	clockRead            // it ticks
)

// systemClock is the machine's clock, read once a tick however often it is asked: reading it costs more than all the rest of a
// decision. A lease may so be seen to end a tick late, or as late as the scheduler lets the goroutine be that ticks. That one
// runs only while somebody asks, and ends by itself: there is nothing to close.
type systemClock struct {
	start time.Time
	state atomic.Uint32
	mono  atomic.Int64 // nanoseconds since start
	wall  atomic.Int64 // nanoseconds since 1970
}

func newSystemClock() *systemClock { return &systemClock{start: time.Now()} }

// Wall is the time of the day, up to a tick old.
func (c *systemClock) Wall() time.Time {
	if c.fresh() {
		return time.Unix(0, c.wall.Load())
	}
	return time.Now()
}

// Mono is the time since the clock was made, up to a tick old; so it may seem to go back, by no more than a tick.
func (c *systemClock) Mono() time.Duration {
	if c.fresh() {
		return time.Duration(c.mono.Load())
	}
	return time.Since(c.start)
}

// fresh notes that the clock is read, and reports whether it ticks. What it holds is loaded after that: it is then no older than
// the call, whatever the clock does meanwhile.
func (c *systemClock) fresh() bool { return c.state.Load() == clockRead || c.read() }

// read is fresh where something is to be done. It starts a clock that stands.
func (c *systemClock) read() bool {
	if c.state.CompareAndSwap(clockUnread, clockRead) {
		return true
	}
	if c.state.CompareAndSwap(clockIdle, clockStarting) {
		c.set()
		c.state.Store(clockRead)
		go c.run()
		return true
	}
	return c.state.Load() == clockRead
}

func (c *systemClock) set() {
	now := time.Now()
	c.mono.Store(int64(now.Sub(c.start)))
	c.wall.Store(now.UnixNano())
}

// run ticks until nobody has asked for a while.
func (c *systemClock) run() {
	ticker := time.NewTicker(clockTick)
	defer ticker.Stop()
	unread := 0
	for range ticker.C {
		c.set()
		if c.state.CompareAndSwap(clockRead, clockUnread) {
			unread = 0
			continue
		}
		if unread++; unread >= idleTicks && c.state.CompareAndSwap(clockUnread, clockIdle) {
			return
		}
	}
}

// Now is the wall time by the router's clock.
func (r *Router) Now() time.Time { return r.clock.Wall() }
