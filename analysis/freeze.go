package analysis

import "fmt"

const (
	freezePolls  = 6  // over which a condition is looked at
	freezeTrials = 20 // below which it freezes nothing: one failure of one is no outage
)

// ring holds one metric's last polls.
type ring struct {
	polls [freezePolls]arms
	next  int
}

type arms struct{ stable, canary tally }

func (r *ring) add(s Sample, usable bool) {
	p := &r.polls[r.next]
	p.stable.clear()
	p.canary.clear()
	if usable {
		p.stable.add(s.Stable)
		p.canary.add(s.Canary)
	}
	r.next = (r.next + 1) % freezePolls
}

func (r *ring) clear() { *r = ring{} }

// sum is one version's last polls, oldest first.
func (r *ring) sum(canary bool, into *tally) {
	into.clear()
	for i := range freezePolls {
		p := &r.polls[(r.next+i)%freezePolls]
		t := &p.stable
		if canary {
			t = &p.canary
		}
		into.add(t.counts())
	}
}

// condition is a Condition with its metric.
type condition struct {
	Condition
	meter *meter
}

// holds reports whether the condition holds over the last polls, and the value that it has. Counted events are summed, not divided.
func (c condition) holds(scratch *tally) (bool, float64) {
	m := c.meter.metric
	c.meter.ring.sum(c.Canary, scratch)
	if m.Kind != Value && scratch.observations(m.Kind) < freezeTrials {
		return false, 0
	}
	e := scratch.estimate(m, c.meter.bounds)
	if m.Kind == Count {
		e.value = scratch.x
	}
	return e.ok && c.Op.holds(e.value, c.Limit), e.value
}

// Frozen reports whether a condition of FreezeWhen held over the last polls, and says which. While it does, polls feed neither the
// tests nor the windows, but counted events still count. Fewer than 20 trials over the last 6 polls freeze nothing.
func (e *Engine) Frozen() (bool, string) {
	for _, c := range e.conditions {
		if held, value := c.holds(&e.scratch); held {
			return true, fmt.Sprintf("%s: it was %s over the last %d polls", c.Text, number(value), freezePolls)
		}
	}
	return false, ""
}

func (e *Engine) isFrozen() bool {
	for _, c := range e.conditions {
		if held, _ := c.holds(&e.scratch); held {
			return true
		}
	}
	return false
}
