package analysis

import (
	"errors"
	"slices"
)

// save is the meter's part of the state.
func (mt *meter) save() *meterState {
	s := &meterState{
		Trials: mt.trials, Events: mt.events,
		Stable: mt.stable.save(), Canary: mt.canary.save(), Baseline: mt.baseline.save(),
		Before: mt.reference.before, Now: mt.reference.now, Polls: mt.reference.polls,
		Past: mt.past.save(), VarStable: mt.varStable.save(), VarCanary: mt.varCanary.save(),
	}
	if mt.ring != nil {
		s.Ring = &ringState{Next: mt.ring.next}
		for i := range mt.ring.polls {
			s.Ring.Stable[i], s.Ring.Canary[i] = mt.ring.polls[i].stable.save(), mt.ring.polls[i].canary.save()
		}
	}
	return s
}

// load takes the meter's part of a state back, after its bounds.
func (mt *meter) load(s *meterState) error {
	fits := func(b []float64) bool { return len(b) == 0 || (len(mt.bounds) > 0 && len(b) == len(mt.bounds)+1) }
	tallies := []*tallyState{s.Stable, s.Canary, s.Baseline}
	if s.Ring != nil {
		tallies = append(append(tallies, s.Ring.Stable[:]...), s.Ring.Canary[:]...)
	}
	wrong := func(t *tallyState) bool { return t != nil && (!fits(t.Buckets) || !(t.N >= 0) || !(t.X >= 0)) }
	for _, v := range []*[5]float64{s.VarStable, s.VarCanary} {
		if v != nil && slices.ContainsFunc(v[:], func(x float64) bool { return !(x >= 0) }) {
			return errors.New("a variance is below 0")
		}
	}
	if slices.ContainsFunc(tallies, wrong) || !fits(s.Before) || !fits(s.Now) || s.Polls < 0 {
		return errors.New("its numbers do not fit together")
	}
	if (s.Ring != nil) != (mt.ring != nil) {
		return errors.New("it is of another freeze_when")
	}
	mt.trials, mt.events = s.Trials, s.Events
	mt.stable, mt.canary, mt.baseline = s.Stable.load(), s.Canary.load(), s.Baseline.load()
	mt.reference = reference{before: s.Before, now: s.Now, polls: s.Polls}
	mt.varStable, mt.varCanary = loadVariance(s.VarStable), loadVariance(s.VarCanary)
	if s.Past != nil {
		mt.past = past{n: s.Past[0], x: s.Past[1]}
	}
	mt.look()
	if mt.ring == nil {
		return nil
	}
	if s.Ring.Next < 0 || s.Ring.Next >= freezePolls {
		return errors.New("its last polls are out of range")
	}
	mt.ring.next = s.Ring.Next
	for i := range mt.ring.polls {
		mt.ring.polls[i] = arms{stable: s.Ring.Stable[i].load(), canary: s.Ring.Canary[i].load()}
	}
	return nil
}

func (t *tally) save() *tallyState {
	if t.n == 0 && t.x == 0 && len(t.buckets) == 0 && !t.known {
		return nil
	}
	s := &tallyState{N: t.n, X: t.x, Buckets: t.buckets}
	if t.known {
		value := t.value
		s.Value = &value
	}
	return s
}

func (s *tallyState) load() tally {
	if s == nil {
		return tally{}
	}
	t := tally{n: s.N, x: s.X, buckets: s.Buckets, count: total(s.Buckets)}
	if s.Value != nil {
		t.value, t.known = *s.Value, true
	}
	return t
}

func (v variance) save() *[5]float64 {
	if v == (variance{}) {
		return nil
	}
	return &[5]float64{v.sum, v.terms, v.lastN, v.lastAvg, v.n}
}

func loadVariance(s *[5]float64) variance {
	if s == nil {
		return variance{}
	}
	return variance{sum: s[0], terms: s[1], lastN: s[2], lastAvg: s[3], n: s[4]}
}

func (p past) save() *[2]float64 {
	if p == (past{}) {
		return nil
	}
	return &[2]float64{p.n, p.x}
}

func (r *rise) save() floats {
	if r.lowest == 0 {
		return nil
	}
	return floats{r.stable.n, r.stable.x, r.canary.n, r.canary.x, r.lowest}
}

func (r *rise) load(s floats) error {
	if len(s) == 0 {
		return nil
	}
	if len(s) != 5 || !(s[4] > 0) {
		return errors.New("where its evidence began to rise is not there")
	}
	*r = rise{stable: past{n: s[0], x: s[1]}, canary: past{n: s[2], x: s[3]}, lowest: s[4]}
	return nil
}
