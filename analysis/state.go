package analysis

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

// stateVersion 2 has other bets than 1, ladders, the share of traffic and stable's past. A state of version 1 is still read.
const stateVersion = 2

// ErrNewer is the error of Restore for a state that a newer version of this package wrote.
var ErrNewer = errors.New("the state is of a newer version")

// state is everything that an Engine knows. Numbers are exact: JSON's shortest form of a float64 reads back as the same one.
type state struct {
	Version  int                    `json:"version"`
	Poll     int64                  `json:"poll"`
	Stage    int                    `json:"stage"`
	Weight   int                    `json:"weight"`
	Requests [2]float64             `json:"requests"` // stable, canary
	Frozen   bool                   `json:"frozen,omitempty"`
	Ignored  int64                  `json:"ignored,omitempty"`
	Bounds   []floats               `json:"bounds,omitempty"` // of histograms, each once
	Metrics  map[string]*meterState `json:"metrics"`
	Tests    map[string]*testState  `json:"tests,omitempty"`
	Ladders  map[string]halves      `json:"ladders,omitempty"` // by metric
	Traffic  *trafficState          `json:"traffic,omitempty"`
	Streaks  map[string]int         `json:"streaks,omitempty"` // by check
}

type meterState struct {
	Bounds    int         `json:"bounds,omitempty"` // which of the state's, from 1; 0 for none
	Stable    *tallyState `json:"stable,omitempty"`
	Canary    *tallyState `json:"canary,omitempty"`
	Baseline  *tallyState `json:"baseline,omitempty"`
	Trials    float64     `json:"trials,omitempty"` // the canary's, of the whole rollout
	Events    float64     `json:"events,omitempty"`
	Past      *[2]float64 `json:"past,omitempty"`   // what stable did before: n and x
	Before    counts      `json:"before,omitempty"` // the reference
	Now       counts      `json:"now,omitempty"`
	Polls     int         `json:"polls,omitempty"`
	VarStable *[5]float64 `json:"var_stable,omitempty"`
	VarCanary *[5]float64 `json:"var_canary,omitempty"`
	Ring      *ringState  `json:"ring,omitempty"`
}

type ringState struct {
	Next   int                      `json:"next"`
	Stable [freezePolls]*tallyState `json:"stable"`
	Canary [freezePolls]*tallyState `json:"canary"`
}

type tallyState struct {
	N       float64  `json:"n,omitempty"`
	X       float64  `json:"x,omitempty"`
	Buckets counts   `json:"b,omitempty"`
	Value   *float64 `json:"v,omitempty"`
}

type testState struct {
	Worse  mixtureState  `json:"worse"`
	Within *mixtureState `json:"within,omitempty"`
	Proven bool          `json:"proven,omitempty"`
	Rise   floats        `json:"rise,omitempty"` // since the least evidence: n and x of stable and canary, and what it was
}

type mixtureState struct {
	LogS    floats  `json:"s"`
	Unspent float64 `json:"u"`
	Begun   bool    `json:"b,omitempty"`
}

type trafficState struct {
	More  floats     `json:"more"`
	Less  floats     `json:"less"`
	Units [2]float64 `json:"units"`
	Begun bool       `json:"begun,omitempty"`
	Off   bool       `json:"off,omitempty"`
}

// floats are written as the base64 of their bits: half as long as in decimals, exact, and with room for -Inf.
type floats []float64

// MarshalJSON writes the bits.
func (f floats) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 8*len(f))
	for _, x := range f {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	}
	return json.Marshal(b)
}

// UnmarshalJSON reads the bits. NaN is refused.
func (f *floats) UnmarshalJSON(text []byte) error {
	var b []byte
	if err := json.Unmarshal(text, &b); err != nil {
		return err
	}
	if len(b)%8 != 0 {
		return fmt.Errorf("%d bytes are no whole number of float64", len(b))
	}
	*f = make(floats, len(b)/8)
	for i := range *f {
		x := math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
		if math.IsNaN(x) {
			return errors.New("a number is NaN")
		}
		(*f)[i] = x
	}
	return nil
}

// counts are a histogram's buckets. Whole numbers, as they should be, are written as the base64 of their varints, others as floats.
type counts []float64

// MarshalJSON writes a string of whole numbers, or [floats].
func (c counts) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 2*len(c))
	for _, x := range c {
		if x != math.Trunc(x) || !countable(x) {
			return json.Marshal([]floats{floats(c)})
		}
		b = binary.AppendUvarint(b, uint64(x))
	}
	return json.Marshal(b)
}

// UnmarshalJSON reads either.
func (c *counts) UnmarshalJSON(text []byte) error {
	var b []byte
	if err := json.Unmarshal(text, &b); err != nil {
		var all []floats
		if err := json.Unmarshal(text, &all); err != nil || len(all) != 1 {
			return errors.New("these are no buckets")
		}
		*c = counts(all[0])
		return nil
	}
	for len(b) > 0 {
		x, n := binary.Uvarint(b)
		if n <= 0 {
			return errors.New("a bucket is cut off")
		}
		*c, b = append(*c, float64(x)), b[n:]
	}
	return nil
}

// State is everything that the engine knows, as versioned JSON: a few KiB for ten metrics. Restore takes it back exactly.
func (e *Engine) State() (json.RawMessage, error) {
	s := state{
		Version: stateVersion, Poll: e.poll, Stage: e.stage, Weight: e.weight,
		Requests: [2]float64{e.requests.Stable, e.requests.Canary}, Frozen: e.frozen, Ignored: e.ignored,
		Metrics: map[string]*meterState{}, Tests: map[string]*testState{}, Ladders: map[string]halves{}, Streaks: map[string]int{},
		Traffic: e.traffic.save(),
	}
	for _, mt := range e.meters {
		saved := mt.save()
		saved.Bounds = s.keep(mt.bounds)
		s.Metrics[mt.metric.Name] = saved
	}
	for _, t := range e.tests {
		saved := &testState{Worse: t.worse.save(), Proven: t.proven, Rise: t.rise.save()}
		if len(t.within.logS) > 0 {
			within := t.within.save()
			saved.Within = &within
		}
		s.Tests[t.key] = saved
	}
	for _, g := range e.groups {
		if g.ladder != nil {
			s.Ladders[g.key()] = g.ladder.save()
		}
	}
	for _, a := range e.asked {
		if a.streak > 0 {
			s.Streaks[a.key()] = a.streak
		}
	}
	out, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write the state of the analysis: %w", err)
	}
	return out, nil
}

// keep is which of the state's bounds these are, from 1; 0 for none.
func (s *state) keep(bounds []float64) int {
	if len(bounds) == 0 {
		return 0
	}
	for i, b := range s.Bounds {
		if sameBounds(b, bounds) {
			return i + 1
		}
	}
	s.Bounds = append(s.Bounds, bounds)
	return len(s.Bounds)
}

// key tells the checks apart.
func (a *asked) key() string { return fmt.Sprintf("%s %d %s", a.Role, a.Stage, a.Check.Text) }

// Restore takes back a State of an engine with the same Config. Empty is an engine that has seen nothing. Anything else is an error, and
// leaves an engine that has seen nothing.
func (e *Engine) Restore(raw json.RawMessage) error {
	e.reset()
	if len(raw) == 0 {
		return nil
	}
	if err := e.restore(raw); err != nil {
		e.reset()
		return fmt.Errorf("restore the state of the analysis: %w", err)
	}
	return nil
}

func (e *Engine) restore(raw json.RawMessage) error {
	var version struct{ Version int }
	if err := json.Unmarshal(raw, &version); err != nil {
		return err
	}
	if version.Version > stateVersion {
		return fmt.Errorf("%w: %d, want at most %d", ErrNewer, version.Version, stateVersion)
	}
	if version.Version < 1 {
		return fmt.Errorf("version %d, want 1 to %d", version.Version, stateVersion)
	}
	var s state
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after it")
	}
	if !amount(s.Requests[0]) || !amount(s.Requests[1]) || s.Poll < -1 || s.Stage < EveryStage || s.Weight < 0 || s.Weight > bake || s.Ignored < 0 {
		return errors.New("its numbers are out of range")
	}
	if len(s.Metrics) != len(e.meters) || len(s.Tests) != len(e.tests) {
		return fmt.Errorf("it is of %d metrics and %d tests, want %d and %d: it is of another rollout", len(s.Metrics), len(s.Tests), len(e.meters), len(e.tests))
	}
	e.poll, e.stage, e.weight, e.frozen, e.ignored = s.Poll, s.Stage, s.Weight, s.Frozen, s.Ignored
	e.requests = Requests{Stable: s.Requests[0], Canary: s.Requests[1]}
	return e.restoreParts(s)
}

func (e *Engine) restoreParts(s state) error {
	for _, mt := range e.meters {
		saved := s.Metrics[mt.metric.Name]
		if saved == nil {
			return fmt.Errorf("it has no metric %s: it is of another rollout", mt.metric.Name)
		}
		if saved.Bounds < 0 || saved.Bounds > len(s.Bounds) {
			return fmt.Errorf("metric %s: its bounds are not there", mt.metric.Name)
		}
		if saved.Bounds > 0 {
			mt.bounds = slices.Clone(s.Bounds[saved.Bounds-1])
		}
		if err := mt.load(saved); err != nil {
			return fmt.Errorf("metric %s: %w", mt.metric.Name, err)
		}
	}
	for _, t := range e.tests {
		saved := s.Tests[t.key]
		if saved == nil || (saved.Within != nil) != (len(t.within.logS) > 0) {
			return fmt.Errorf("it has no test %s: it is of another rollout", t.key)
		}
		if err := t.load(saved, s.Version); err != nil {
			return fmt.Errorf("test %s: %w", t.key, err)
		}
	}
	for _, a := range e.asked {
		a.streak = min(valueStreak, max(0, s.Streaks[a.key()]))
	}
	if s.Version == 1 {
		return nil
	}
	for _, g := range e.groups {
		if g.ladder == nil {
			continue
		}
		if err := g.ladder.load(s.Ladders[g.key()]); err != nil {
			return fmt.Errorf("ladder %s: %w", g.key(), err)
		}
	}
	return e.traffic.load(s.Traffic)
}

func (t *test) load(s *testState, version int) error {
	t.proven = s.Proven
	if err := t.rise.load(s.Rise); err != nil {
		return err
	}
	if s.Within != nil {
		if err := t.within.load(*s.Within, version); err != nil {
			return err
		}
	}
	if err := t.worse.load(s.Worse, version); err != nil {
		return err
	}
	t.value = t.worse.value()
	return nil
}

func (m *mixture) save() mixtureState {
	return mixtureState{LogS: m.logS, Unspent: m.unspent, Begun: m.begun}
}

func (m *mixture) load(s mixtureState, version int) error {
	if !(s.Unspent >= 0 && s.Unspent <= 1) {
		return fmt.Errorf("%g is unspent, want 0 to 1", s.Unspent)
	}
	if slices.Contains(s.LogS, math.Inf(1)) {
		return errors.New("a bet has won without end")
	}
	m.unspent, m.begun = s.Unspent, s.Begun
	if version == 1 { // bets that are made no longer, each of the same weight: their wealth goes to those that are
		if len(s.LogS) == 0 {
			return errors.New("there are no bets")
		}
		old := mixture{logS: s.LogS}
		m.refill(old.value() / float64(len(s.LogS)))
		return nil
	}
	if len(s.LogS) != len(m.logS) {
		return fmt.Errorf("%d bets, want %d", len(s.LogS), len(m.logS))
	}
	copy(m.logS, s.LogS)
	return nil
}
