// Package router chooses, for every request to an agent, the version that serves it: sticky to the conversation, by a weight
// that a control plane leases, in the caller's own process. Package router/proxy puts a reverse proxy around it, router/admin
// an HTTP API.
package router

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/router/upstream"
)

// The defaults of Options.
const (
	DefaultPinTTL        = 24 * time.Hour
	DefaultDrainDeadline = time.Hour
	DefaultMemory        = 100_000
)

// Options of a Router. The zero value is a router that forgets everything when it ends.
type Options struct {
	Agents map[string]AgentOptions // known from the start, by name
	// Keys sign pins and check overrides. Nil: a random key; no token then outlives the process, nor holds on another replica.
	Keys          *Keyring
	PinTTL        time.Duration // since the conversation's last turn; 0: DefaultPinTTL
	DrainDeadline time.Duration // how long pins to the canary last after a rollback with Drain; 0: DefaultDrainDeadline
	// StateFile keeps the registry, promotions and the fence over a restart. Empty: they are not kept.
	StateFile string
	Memory    int // conversations remembered per agent for feedback by id; 0: DefaultMemory
	// StickyMemory is for clients that can't echo a pin: at least that many conversations of each agent, those used last, keep
	// their version by Request.Key alone, by the rules of a pin. This router remembers them, no other one does; each costs
	// some 100 bytes, and up to twice as many are held. It takes a lock in Decide. 0: none.
	StickyMemory int
	Clock        Clock        // nil: the machine's; up to a millisecond old while it is read very often
	Logger       *slog.Logger // nil: none
}

// AgentOptions are one agent of Options.
type AgentOptions struct {
	Stable   string // one of Versions
	Versions map[string]api.Version
	Limits   upstream.Limits // of each version
	// SideEffects says that the agent's requests do things that must not happen twice: it is never mirrored.
	SideEffects bool
	Hash        string // HashAviary or HashFlagd: how keys are divided; empty: HashAviary
}

// Router holds the routes of agents. It is safe for concurrent use; New makes one.
type Router struct {
	table    atomic.Pointer[table]
	keys     *Keyring
	clock    Clock
	born     time.Duration // by the clock's Mono
	log      *slog.Logger
	pinTTL   time.Duration
	drain    time.Duration
	memory   int
	sticky   int
	instance string
	path     string

	mu      sync.Mutex // guards what follows, and the replacing of table
	agents  map[string]*agentState
	stats   map[statsKey]*Stats
	retired map[statsKey]time.Duration // of stats: not registered since then, by Clock.Mono
	unsaved bool                       // the state file lags behind
}

type statsKey struct{ agent, version string }

// New is a router that knows o.Agents and what the state file remembers. Errors name the agent or the file at fault.
func New(o Options) (*Router, error) {
	r := &Router{
		keys: o.Keys, clock: o.Clock, log: o.Logger, path: o.StateFile,
		pinTTL: o.PinTTL, drain: o.DrainDeadline, memory: o.Memory, sticky: o.StickyMemory,
		instance: randomID(),
		agents:   make(map[string]*agentState), stats: make(map[statsKey]*Stats), retired: make(map[statsKey]time.Duration),
	}
	if r.keys == nil {
		ring, err := NewKeyring(RandomKey())
		if err != nil {
			return nil, err
		}
		r.keys = ring
	}
	if r.clock == nil {
		r.clock = newSystemClock()
	}
	r.born = r.clock.Mono()
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.pinTTL == 0 {
		r.pinTTL = DefaultPinTTL
	}
	if r.drain == 0 {
		r.drain = DefaultDrainDeadline
	}
	if r.memory == 0 {
		r.memory = DefaultMemory
	}
	if r.pinTTL < time.Second || r.drain < 0 || r.memory < 0 || r.sticky < 0 {
		return nil, fmt.Errorf("pin ttl %s, drain deadline %s, memory %d, sticky memory %d: want at least 1s, 0, 0 and 0",
			r.pinTTL, r.drain, r.memory, r.sticky)
	}
	for name, a := range o.Agents {
		if err := r.addConfigured(name, a); err != nil {
			return nil, err
		}
	}
	if err := r.load(); err != nil {
		return nil, err
	}
	if err := r.writable(); err != nil {
		return nil, err
	}
	r.publish()
	return r, nil
}

// RandomKey is a key nobody else knows.
func RandomKey() Key {
	secret := make([]byte, 32)
	rand.Read(secret)
	return Key{ID: "random", Secret: secret}
}

func randomID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Instance is a random id of this Router: counters of two instances have nothing to do with each other.
func (r *Router) Instance() string { return r.instance }

// Keys check the override tokens of testers.
func (r *Router) Keys() *Keyring { return r.keys }

// Tick does what is due by the clock and by no request: it ends live streams of canaries whose lease has run out under Kill,
// frees the statistics of versions that are long gone, and tries again to save a state that could not be saved. Call it a few
// times a second.
func (r *Router) Tick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Mono()
	for _, s := range r.agents {
		if s.leaseHolds(now) {
			continue
		}
		if s.route.OnRollback == api.Kill && s.weight() > 0 {
			s.versions[s.route.Canary].streams.setKilled(true)
		}
		if s.mirror() > 0 {
			s.versions[s.route.Canary].copies.setKilled(true)
		}
	}
	if len(r.retired) > 0 {
		r.retire()
	}
	if r.unsaved {
		if err := r.save(); err != nil {
			r.log.Error("state not saved", "error", err)
		}
	}
}

// publish makes what the agents' states say the table that Decide reads.
func (r *Router) publish() {
	r.retire()
	t := &table{agents: make(map[string]*agentTable, len(r.agents))}
	for name, s := range r.agents {
		t.agents[name] = s.table(r.drain)
	}
	r.table.Store(t)
}

func (r *Router) statsOf(agent, version string) *Stats {
	k := statsKey{agent, version}
	if r.stats[k] == nil {
		r.stats[k] = newStats(agent, version)
	}
	return r.stats[k]
}
