package router

import "time"

// Clock tells a router the time. Leases and deadlines run on Mono, which nobody can set; expiries that other machines read run
// on Wall.
type Clock interface {
	Wall() time.Time
	Mono() time.Duration // since some fixed moment; never goes back
}

// systemClock is the machine's clock.
type systemClock struct{ start time.Time }

func (c systemClock) Wall() time.Time     { return time.Now() }
func (c systemClock) Mono() time.Duration { return time.Since(c.start) }

// Now is the wall time by the router's clock.
func (r *Router) Now() time.Time { return r.clock.Wall() }
