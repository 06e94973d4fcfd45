package calibration

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// player replays pseudo-rollouts: identical versions, cut out of the history.
type player struct {
	h       *History
	rollout Rollout
	seed    uint64
	stages  []played
	length  int     // of the rollout, in the history's polls
	scale   float64 // of the stages' durations, 1 unless the history is shorter than the rollout
	polls   int     // of one pseudo-rollout, about
}

// played is a stage in the history's polls.
type played struct {
	Stage
	from, to int // within the rollout
	joined   int // polls that are taken as one
}

// newPlayer cuts the stages to the history. No pseudo-rollout has more than most polls: neighbours are joined, which tests nothing less, for
// evidence is valid whenever it is looked at.
func newPlayer(h *History, r Rollout, most int, seed uint64) *player {
	p := &player{h: h, rollout: r, seed: seed, scale: 1}
	if r.length() > h.Span() {
		p.scale = float64(h.Span()) / float64(r.length())
	}
	joined := max(1, int(math.Ceil(p.scale*float64(r.length())/float64(h.Step)/float64(most))))
	var at time.Duration
	for _, s := range r.Stages {
		from := int(p.scale * float64(at) / float64(h.Step))
		at += s.Duration
		to := int(p.scale * float64(at) / float64(h.Step))
		p.stages = append(p.stages, played{Stage: s, from: from, to: to, joined: joined})
		p.length = to
		p.polls += (to-from)/joined + 1
	}
	return p
}

// run is one pseudo-rollout: which polls it takes, and what the canary does worse.
type run struct {
	*player
	rng    *rand.Rand
	from   int // in the history
	order  []int
	worse  *worsening // nil: nothing
	buffer map[string]analysis.Sample
}

// start begins the i-th pseudo-rollout. The same i takes the same polls and the same canary.
func (p *player) start(i int, worse *worsening) *run {
	rng := rand.New(rand.NewPCG(p.seed, uint64(i)))
	r := &run{player: p, rng: rng, worse: worse, buffer: map[string]analysis.Sample{}}
	r.from = rng.IntN(p.h.Polls - p.length + 1)
	r.order = rng.Perm(len(p.h.Units))
	return r
}

// turn is which units are the canary's, and in how many of how many slots.
type turn struct {
	units []bool
	slots int  // of canary
	of    int  // in a group; 1: all the time
	drop  bool // units beyond their turn count for nobody; else for stable
}

// turn picks the canary of a stage. Units join it in a fixed order until they have the stage's share; a share that no unit is small enough for
// is taken in slots of time.
func (r *run) turn(s played) turn {
	weight := float64(s.Weight) / full
	if s.Weight >= full {
		return turn{units: all(len(r.order)), slots: 1, of: 1}
	}
	if r.h.By == Whole {
		slots, of := group(weight)
		return turn{units: all(1), slots: slots, of: of}
	}
	requests := make([]float64, len(r.order))
	whole := 0.0
	for i := range r.h.Units {
		requests[i] = r.h.Units[i].Requests.sum(r.from+s.from, r.from+s.to)
		whole += requests[i]
	}
	t := turn{units: make([]bool, len(r.order)), slots: 1, of: 1}
	share := 0.0
	for _, u := range r.order {
		next := share + requests[u]/whole
		if requests[u] == 0 || math.Abs(next-weight) > math.Abs(share-weight) && share > 0 || next > 0.95 {
			continue
		}
		t.units[u], share = true, next
		if share >= weight {
			break
		}
	}
	if share > 1.25*weight {
		t.slots, t.of = group(weight / share)
		t.drop = true
	}
	return t
}

func all(n int) []bool {
	out := make([]bool, n)
	for i := range out {
		out[i] = true
	}
	return out
}

// group is a share as slots of a group, as short as it can be shown to within a twentieth of itself, or of its opposite.
func group(share float64) (slots, of int) {
	tolerance := 0.05 * min(share, 1-share)
	for of = 2; of < 200; of++ {
		slots = int(math.Round(share * float64(of)))
		if slots > 0 && slots < of && math.Abs(float64(slots)/float64(of)-share) <= tolerance {
			return slots, of
		}
	}
	return max(1, min(199, int(math.Round(share*200)))), 200
}

// play runs the polls of every stage and hands each to see, until it says that it has seen enough.
func (r *run) play(begin func(stage int), see func(p analysis.Poll, stage int, last bool, at time.Duration) (enough bool)) {
	number := int64(0)
	for i, s := range r.stages {
		begin(i)
		t := r.turn(s)
		length := max(s.joined, t.of)
		length -= length % t.of
		for at := s.from; at < s.to; at += length {
			to := at + length
			if to+length > s.to { // the last takes what is left
				to = s.to
			}
			poll := r.poll(r.from+at, r.from+to, t)
			poll.Number, poll.Weight = number, s.Weight
			// Units and turns only come near the weight. That is the replay's doing, and not to be told as a broken split.
			n, share := poll.Requests.Stable+poll.Requests.Canary, float64(s.Weight)/full
			poll.Conversations = analysis.Requests{Stable: n * (1 - share), Canary: n * share}
			number++
			if see(poll, i, to == s.to, r.since(to)) {
				return
			}
			if to == s.to {
				break
			}
		}
	}
}

// since is the rollout's time at a poll of the pseudo-rollout.
func (r *run) since(poll int) time.Duration {
	return time.Duration(float64(poll) * float64(r.h.Step))
}

// arm is whose a slot of a unit that takes turns is.
type arm int8

const (
	ofStable arm = iota
	ofCanary
	ofNobody // the rollout would have been frozen
)

// poll adds up the history's polls [from, to).
func (r *run) poll(from, to int, t turn) analysis.Poll {
	slots := make([]arm, to-from)
	for g := 0; g < len(slots); g += t.of {
		n := min(t.of, len(slots)-g)
		for i, slot := range r.rng.Perm(t.of) {
			if i < t.slots && slot < n {
				slots[g+slot] = ofCanary
			}
		}
	}
	for k := range slots {
		if r.h.frozen != nil && r.h.frozen[from+k] {
			slots[k] = ofNobody
		}
	}
	return r.cut(from, slots, t)
}

// gets is who gets a unit's slot.
func (t turn) gets(unit int, slot arm) arm {
	switch {
	case slot == ofNobody || t.units[unit] && slot == ofStable && t.drop:
		return ofNobody
	case t.units[unit]:
		return slot
	}
	return ofStable
}

// cut adds the polls from one on up, as many as there are slots.
func (r *run) cut(from int, slots []arm, t turn) analysis.Poll {
	p := analysis.Poll{Samples: r.buffer}
	for i := range r.h.Units {
		for k, slot := range slots {
			switch n := r.h.Units[i].Requests.At(from + k); t.gets(i, slot) {
			case ofCanary:
				p.Requests.Canary += n
			case ofStable:
				p.Requests.Stable += n
			}
		}
	}
	for m, metric := range r.h.Metrics {
		s := r.buffer[metric.Name]
		r.sample(&s, m, from, slots, t)
		if r.worse != nil && r.worse.metric == m {
			s.Canary = r.worse.apply(s, from, r.rng)
		}
		r.buffer[metric.Name] = s
	}
	return p
}

// sample adds up one metric.
func (r *run) sample(s *analysis.Sample, metric, from int, slots []arm, t turn) {
	s.Canary, s.Stable = cleared(s.Canary), cleared(s.Stable)
	for i := range r.h.Units {
		c := &r.h.Units[i].Metrics[metric]
		if c.N.empty() {
			continue
		}
		if len(c.Bounds) > 0 && len(s.Bounds) == 0 {
			s.Bounds = c.Bounds
			s.Canary.Buckets, s.Stable.Buckets = make([]float64, len(c.Buckets)), make([]float64, len(c.Buckets))
		}
		for k, slot := range slots {
			to, n := &s.Stable, c.N.At(from+k)
			switch t.gets(i, slot) {
			case ofCanary:
				to = &s.Canary
			case ofNobody:
				continue
			}
			if n == 0 {
				continue
			}
			to.N += n
			to.X += c.X.At(from + k)
			for b := range c.Buckets {
				to.Buckets[b] += c.Buckets[b].At(from + k)
			}
		}
	}
}

func cleared(c analysis.Counts) analysis.Counts {
	clear(c.Buckets)
	return analysis.Counts{Buckets: c.Buckets}
}

// parallel calls fn with 0 to n−1, on every processor.
func parallel(n int, fn func(i int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := range next {
				fn(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
