package router

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/aviary-rollouts/aviary/router/api"
)

// modelRollouts drives replicas as the control plane does, and knows what each event means for conversations.
type modelRollouts struct {
	t        *rapid.T
	options  func(stable string) (Options, *fakeClock)
	replicas []*Router
	clocks   []*fakeClock

	stable, before string // the stable versions of now and before the last promotion
	route          api.Route
	runs           int
	events         int            // that void pins
	takenBack      map[string]int // by version: the last event that took it back as a canary
}

// modelConversation is a client that echoes its pin.
type modelConversation struct {
	key, pin, version string
	seen              int // events at its last turn
	run               int // whose canary it was on when its pin was made; 0: on stable
}

// put sets the route on all replicas, and once more on those whose epoch is behind.
func (m *modelRollouts) put(route api.Route) {
	m.route = route
	for range 2 {
		epochs := make([]uint64, len(m.replicas))
		for i, r := range m.replicas {
			seen, err := r.SetRoute(agent, route)
			if err != nil {
				m.t.Fatalf("replica %d: %v", i, err)
			}
			epochs[i] = seen.Epoch
		}
		route.Epoch = slices.Max(epochs)
	}
}

func (m *modelRollouts) live() bool { return m.route.Weight > 0 }

func (m *modelRollouts) taken(version string) {
	m.events++
	m.takenBack[version] = m.events
}

// begin starts a rollout; one that was live is left lying until its lease has run out.
func (m *modelRollouts) begin() {
	if m.live() {
		for _, c := range m.clocks {
			c.advance(time.Minute)
		}
		m.taken(m.route.Canary)
	}
	canary := rapid.SampledFrom([]string{"v40", "v41", "v42", "v43"}).Filter(func(v string) bool { return v != m.stable }).Draw(m.t, "canary")
	m.runs++
	m.put(api.Route{
		Stable: m.stable, Canary: canary, Weight: rapid.IntRange(1, Buckets).Draw(m.t, "weight"), Owner: fmt.Sprintf("run%d", m.runs), Revision: 1, LeaseMillis: 60_000,
	})
}

func (m *modelRollouts) shift() {
	route := m.route
	if !m.live() {
		return
	}
	route.Weight, route.Revision = rapid.IntRange(1, Buckets).Draw(m.t, "weight"), route.Revision+1
	m.put(route)
}

func (m *modelRollouts) rollBack() {
	if !m.live() {
		return
	}
	m.taken(m.route.Canary)
	m.put(taken(m.route, api.Evict))
}

func (m *modelRollouts) promote() {
	if !m.live() {
		return
	}
	m.before, m.stable = m.stable, m.route.Canary
	m.put(promoted(m.route))
}

// takePromotionBack is a rollback by the owner that has just promoted.
func (m *modelRollouts) takePromotionBack() {
	if !m.route.Promoted {
		return
	}
	m.taken(m.stable)
	m.stable, m.route = m.before, api.Route{Stable: m.before, Canary: m.stable, Owner: m.route.Owner, Revision: m.route.Revision}
	m.put(taken(m.route, api.Evict))
}

// replace starts a replica anew, with nothing but its settings, and renews the route.
func (m *modelRollouts) replace() {
	if !m.live() {
		return
	}
	i := rapid.IntRange(0, len(m.replicas)-1).Draw(m.t, "replica")
	o, clock := m.options(m.stable)
	clock.wall = m.clocks[i].Wall()
	r, err := New(o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.replicas[i], m.clocks[i] = r, clock
	m.put(m.route)
}

// turn is a conversation's next turn, on any replica.
func (m *modelRollouts) turn(c *modelConversation) {
	r := m.replicas[rapid.IntRange(0, len(m.replicas)-1).Draw(m.t, "replica of the turn")]
	// A canary that was one before, in a rollout that was promoted and followed by another: a pin to a canary is of its rollout.
	again := c.version == m.route.Canary && c.run != 0 && c.run != m.runs
	d, err := r.Decide(agent, Request{Key: c.key, Pin: c.pin})
	if err != nil {
		m.t.Fatal(err)
	}
	switch {
	case c.version == "":
	case c.seen == m.events && !again && d.Version != c.version:
		m.t.Fatalf("%s moved from %s to %s (%s), though nothing was taken back since its last turn", c.key, c.version, d.Version, d.Reason)
	case m.takenBack[c.version] > c.seen && c.version != m.stable && d.Reason == ByPin:
		m.t.Fatalf("%s stays on %s, which was taken back since its last turn", c.key, d.Version)
	case d.Reason != ByPin && c.version != d.Version && d.MigratedFrom != c.version:
		m.t.Fatalf("%s moved from %s to %s, marked as coming from %q", c.key, c.version, d.Version, d.MigratedFrom)
	}
	c.version, c.seen = d.Version, m.events
	switch {
	case d.Canary:
		c.run = m.runs
	case d.Version == m.stable:
		c.run = 0
	}
	if d.NewPin {
		c.pin = string(r.AppendPin(nil, &d))
	}
}

// Over any history of rollouts on replicas that come and go: no conversation moves unless something was taken back since its last
// turn, and none stays on what was taken back.
func TestConversationsMoveByRollbacksOnly(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		m := &modelRollouts{t: rt, stable: "v41", takenBack: map[string]int{}}
		m.options = func(stable string) (Options, *fakeClock) {
			clock := newFakeClock()
			o := testOptions(t, clock)
			a := o.Agents[agent]
			a.Stable = stable
			o.Agents = map[string]AgentOptions{agent: a}
			return o, clock
		}
		for range 2 {
			o, clock := m.options(m.stable)
			r, err := New(o)
			if err != nil {
				rt.Fatal(err)
			}
			m.replicas, m.clocks = append(m.replicas, r), append(m.clocks, clock)
		}
		var all []*modelConversation
		for i := range 12 {
			all = append(all, &modelConversation{key: fmt.Sprintf("conversation-%d", i)})
		}
		steps := map[string]func(*rapid.T){"": func(*rapid.T) {}}
		for name, step := range map[string]func(){
			"begin": m.begin, "shift": m.shift, "roll back": m.rollBack, "promote": m.promote, "take a promotion back": m.takePromotionBack, "replace": m.replace,
		} {
			steps[name] = func(*rapid.T) { step() }
		}
		steps["turns"] = func(rt *rapid.T) {
			for _, c := range all {
				if rapid.Bool().Draw(rt, c.key) {
					m.turn(c)
				}
			}
		}
		rt.Repeat(steps)
	})
}
