package analysis

import "strings"

// meter is what is kept of one metric.
type meter struct {
	metric    Metric
	bounds    []float64
	stable    tally // of this stage
	canary    tally
	baseline  tally   // stable's, of the last stage that had both versions
	trials    float64 // the canary's, of the whole rollout
	events    float64 // among them
	past      past
	reference reference
	varStable variance
	varCanary variance
	ring      *ring // the last polls, where a condition asks for them

	sample Sample // of the poll that is taken in
	usable bool   // there is a sample, and it can be counted

	view      view      // of the sample
	seen      []float64 // the reference as a whole,
	seenTails tails
	cut       float64 // and its quantile: the threshold that the poll is judged by
	cutKnown  bool
}

// past is what stable did in the polls before, the older the less.
type past struct{ n, x float64 }

const pastDecay = 0.998 // a poll: half of it is from the last 350

func (p *past) add(n, x float64) { p.n, p.x = p.n*pastDecay+n, p.x*pastDecay+x }

// mean is x per n, 0 before there is any.
func (p past) mean() float64 {
	if p.n <= 0 {
		return 0
	}
	return p.x / p.n
}

// tally sums up increments.
type tally struct {
	n, x    float64
	buckets []float64
	count   float64 // of what is in the buckets
	value   float64
	known   bool // there is a value
}

func (t *tally) add(c Counts) {
	t.n += c.N
	t.x += c.X
	if len(c.Buckets) > 0 {
		t.buckets = addTo(t.buckets, c.Buckets)
		t.count += total(c.Buckets)
	}
	if c.HasValue {
		t.value, t.known = c.Value, true
	}
}

func (t *tally) clear() { *t = tally{buckets: t.buckets[:0]} }

func (t *tally) set(from tally) {
	buckets := append(t.buckets[:0], from.buckets...)
	*t = from
	t.buckets = buckets
}

func (t *tally) counts() Counts {
	return Counts{N: t.n, X: t.x, Buckets: t.buckets, Value: t.value, HasValue: t.known}
}

// observations is how many trials or observations there are, 1 for a value.
func (t *tally) observations(k Kind) float64 {
	switch {
	case k == Quantile:
		return t.count
	case k == Value && t.known:
		return 1
	case k == Value:
		return 0
	}
	return t.n
}

// estimate is a metric's value, and how far to trust it.
type estimate struct {
	value float64
	ok    bool // there is one
	least bool // it is at least that much: a quantile above all bounds
}

// estimate is the metric's value: events per trial, mean, quantile or value.
func (t *tally) estimate(m Metric, bounds []float64) estimate {
	switch {
	case t.observations(m.Kind) <= 0:
		return estimate{}
	case m.Kind == Value:
		return estimate{value: t.value, ok: true}
	case m.Kind == Quantile:
		v, inside := quantile(bounds, t.buckets, t.count, m.Quantile)
		return estimate{value: v, ok: true, least: !inside}
	}
	return estimate{value: t.x / t.n, ok: true}
}

// take looks at a sample before it is counted, and reports whether there is something wrong with it.
func (mt *meter) take(s Sample, there bool) (faulty bool) {
	mt.usable = false
	if !there {
		return false
	}
	if s.Canary.valid() {
		mt.trials += s.Canary.N
		mt.events += s.Canary.X
	}
	if mt.metric.Kind != Quantile {
		s.Bounds, s.Stable.Buckets, s.Canary.Buckets = nil, nil, nil
	}
	if !s.Canary.valid() || !s.Stable.valid() || !s.validBounds() {
		return true
	}
	if len(s.Bounds) > 0 && !sameBounds(mt.bounds, s.Bounds) {
		mt.rebucket(s.Bounds)
	}
	mt.sample, mt.usable = s, true
	return false
}

// stageView is a view of the stage so far.
func (mt *meter) stageView() *view {
	var v view
	v.of(Sample{Stable: mt.stable.counts(), Canary: mt.canary.counts()})
	return &v
}

// rebucket begins with other buckets. What was counted in the old ones can't be compared with what comes.
func (mt *meter) rebucket(bounds []float64) {
	mt.bounds = append([]float64(nil), bounds...)
	for _, t := range []*tally{&mt.stable, &mt.canary, &mt.baseline} {
		t.buckets, t.count = nil, 0
	}
	mt.reference.clear()
	mt.look()
	if mt.ring != nil {
		mt.ring.clear()
	}
}

// learn keeps what later polls are judged by. While the canary settles, it is not learnt from.
func (mt *meter) learn(settling bool) {
	mt.past.add(mt.sample.Stable.N, mt.sample.Stable.X)
	switch mt.metric.Kind {
	case Quantile:
		mt.reference.add(mt.sample.Stable.Buckets)
		mt.look()
	case Mean:
		mt.varStable.add(mt.sample.Stable.N, mt.sample.Stable.X)
		if !settling {
			mt.varCanary.add(mt.sample.Canary.N, mt.sample.Canary.X)
		}
	}
}

// look finds the threshold for the next poll.
func (mt *meter) look() {
	mt.seen = addTo(append(mt.seen[:0], mt.reference.now...), mt.reference.before)
	mt.seenTails = tailsOf(mt.seen, mt.seenTails)
	mt.cut, mt.cutKnown = 0, false
	if q := mt.metric.Quantile; mt.seenTails.total() >= max(leastSeen, leastBeyond/min(q, 1-q)) {
		mt.cut, mt.cutKnown = quantile(mt.bounds, mt.seen, mt.seenTails.total(), q)
	}
}

// How many observations, and how many beyond a threshold, make it one.
const (
	leastSeen   = 100
	leastBeyond = 10
)

// beginStage keeps stable's numbers as the baseline, if they were taken beside the canary's, and begins anew.
func (mt *meter) beginStage(both bool) {
	k := mt.metric.Kind
	if both && mt.stable.observations(k) > 0 && mt.canary.observations(k) > 0 {
		mt.baseline.set(mt.stable)
	}
	mt.stable.clear()
	mt.canary.clear()
}

// isDuration reports whether the metric's observations are durations of requests, in seconds.
func (mt *meter) isDuration() bool {
	return mt.metric.Kind == Quantile && strings.HasSuffix(mt.metric.Name, "latency")
}
