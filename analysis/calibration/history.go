// Package calibration learns from one version's history how much identical versions differ by chance: how its events cluster, how its
// users differ, and what the analysis of a rollout would have made of it. It is pure: history in, numbers out.
package calibration

import (
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// By says what a history's units are.
type By string

// The units.
const (
	Whole     By = "whole"     // there is one: everything together
	Instances By = "instances" // pods or processes, whichever requests they got
	Users     By = "users"     // users or sessions, who stay with a version
)

// cells is how many groups users are put in for what is kept per poll. A router's buckets are finer, but no weight that has to be shown is
// below 2.5 % of them; smaller ones take a part of a cell.
const cells = 40

// History is what one version's counters grew by, poll by poll. A Builder makes one.
type History struct {
	From    time.Time // the first poll is of (From, From+Step]
	Step    time.Duration
	Polls   int
	By      By
	Units   []Unit // at least one; of Users, they are groups of users
	Metrics []analysis.Metric
	// Users are the totals over the history by user and by the index of the metric. Only of Users.
	Users map[string][]Total
	// LeftOut is how many increments were not within the history.
	LeftOut int

	frozen []bool // polls that are left out of what is natural; nil: none
}

// Unit is a part of the traffic.
type Unit struct {
	Name     string
	Requests Column
	Metrics  []Counted // as History.Metrics
}

// Counted is what was counted of one metric of one unit.
type Counted struct {
	N, X    Column
	Bounds  []float64 // of kind quantile: as analysis.Sample
	Buckets []Column  // of kind quantile: not cumulative, one more than Bounds
}

// Total is trials and events, or observations and their sum.
type Total struct{ N, X float64 }

// Span is the time that the history covers.
func (h *History) Span() time.Duration { return time.Duration(h.Polls) * h.Step }

// index is where a metric is in the columns, or -1.
func (h *History) index(metric string) int {
	return slices.IndexFunc(h.Metrics, func(m analysis.Metric) bool { return m.Name == metric })
}

// total is a metric's sum over all units and polls.
func (h *History) total(metric int) Total {
	var t Total
	for i := range h.Units {
		c := &h.Units[i].Metrics[metric]
		t.N += c.N.sum(0, h.Polls)
		t.X += c.X.sum(0, h.Polls)
	}
	return t
}

// requests are those of polls [from, to), of all units.
func (h *History) requests(from, to int) float64 {
	n := 0.0
	for i := range h.Units {
		n += h.Units[i].Requests.sum(from, to)
	}
	return n
}

// Builder collects increments in any order.
type Builder struct {
	h       *History
	units   map[string]int
	buckets []map[float64][]*upTo // by unit, then bound; as the units
	seen    []map[float64]int     // increments by bound, by metric
}

// upTo is the observations up to a bound, per poll.
type upTo struct {
	metric int
	column Column
}

// NewBuilder is a Builder of a history from one moment to another, in whole steps.
func NewBuilder(metrics []analysis.Metric, from, to time.Time, step time.Duration, by By) *Builder {
	h := &History{From: from, Step: step, Polls: int(to.Sub(from) / step), By: by, Metrics: metrics}
	if by == Users {
		h.Users = map[string][]Total{}
	}
	b := &Builder{h: h, units: map[string]int{}, seen: make([]map[float64]int, len(metrics))}
	for i := range b.seen {
		b.seen[i] = map[float64]int{}
	}
	return b
}

// slot is the poll of a moment, and whether there is one.
func (b *Builder) slot(at time.Time) (int, bool) {
	d := at.Sub(b.h.From)
	i := int((d - 1) / b.h.Step)
	if d <= 0 || i >= b.h.Polls {
		b.h.LeftOut++
		return 0, false
	}
	return i, true
}

// unit is a unit, which begins to exist when it is first named.
func (b *Builder) unit(name string) (*Unit, int) {
	if b.h.By == Users {
		name = "group " + strconv.FormatUint(spread(name, "")%cells, 10)
	}
	i, ok := b.units[name]
	if !ok {
		i = len(b.h.Units)
		b.units[name] = i
		b.h.Units = append(b.h.Units, Unit{Name: name, Metrics: make([]Counted, len(b.h.Metrics))})
		b.buckets = append(b.buckets, map[float64][]*upTo{})
	}
	return &b.h.Units[i], i
}

// Add adds trials and events, or observations and their sum, that ended at a moment. Of analysis.TotalRequests, n are the requests. A
// metric that is not of the history is left out.
func (b *Builder) Add(at time.Time, unit, metric string, n, x float64) {
	slot, ok := b.slot(at)
	if !ok {
		return
	}
	u, _ := b.unit(unit)
	if metric == analysis.TotalRequests {
		u.Requests.add(slot, n)
	}
	m := b.h.index(metric)
	if m < 0 {
		return
	}
	u.Metrics[m].N.add(slot, n)
	u.Metrics[m].X.add(slot, x)
	b.addUser(unit, m, n, x)
}

// addUser adds to the totals of a user.
func (b *Builder) addUser(user string, metric int, n, x float64) {
	if b.h.By != Users {
		return
	}
	t := b.h.Users[user]
	if t == nil {
		t = make([]Total, len(b.h.Metrics))
		b.h.Users[user] = t
	}
	t[metric].N += n
	t[metric].X += x
}

// AddBucket adds observations up to a bound, as Prometheus's buckets count them: each holds those below it too. The bound of all of them is
// +Inf.
func (b *Builder) AddBucket(at time.Time, unit, metric string, bound, n float64) {
	m := b.h.index(metric)
	slot, ok := b.slot(at)
	if m < 0 || !ok {
		return
	}
	_, i := b.unit(unit)
	if bound == inf {
		b.addUser(unit, m, n, 0)
	}
	b.seen[m][bound]++
	of := b.buckets[i][bound]
	held := slices.IndexFunc(of, func(u *upTo) bool { return u.metric == m })
	if held < 0 {
		of = append(of, &upTo{metric: m})
		b.buckets[i][bound], held = of, len(of)-1
	}
	of[held].column.add(slot, n)
}

// History is what was added. The Builder is of no more use.
func (b *Builder) History() *History {
	for m := range b.h.Metrics {
		if bounds := commonBounds(b.seen[m]); len(bounds) > 0 {
			for i := range b.h.Units {
				b.fill(m, i, bounds)
			}
		}
	}
	for i := range b.h.Units {
		b.h.Units[i].countRequests(b.h.Polls)
	}
	if len(b.h.Units) == 0 {
		b.h.Units = []Unit{{Metrics: make([]Counted, len(b.h.Metrics))}}
	}
	b.h.trim()
	if len(b.h.Units) == 1 && b.h.By == Instances {
		b.h.By = Whole
	}
	return b.h
}

// mostQuiet is how long nothing may be counted at either end of a version's time.
const mostQuiet = time.Hour

// trim cuts off the polls before the first count and after the last, if they last: the version was not there yet, or no longer.
func (h *History) trim() {
	first, last := h.Polls, 0
	look := func(c *Column) {
		for p := range h.Polls {
			if c.At(p) > 0 {
				first, last = min(first, p), max(last, p)
			}
		}
	}
	for i := range h.Units {
		look(&h.Units[i].Requests)
		for m := range h.Units[i].Metrics {
			look(&h.Units[i].Metrics[m].N)
		}
	}
	quiet := int(mostQuiet / h.Step)
	if first <= quiet {
		first = 0
	}
	if h.Polls-1-last <= quiet {
		last = h.Polls - 1
	}
	if first >= last || first == 0 && last == h.Polls-1 {
		return
	}
	for i := range h.Units {
		u := &h.Units[i]
		u.Requests = u.Requests.cut(first, last+1)
		for m := range u.Metrics {
			c := &u.Metrics[m]
			c.N, c.X = c.N.cut(first, last+1), c.X.cut(first, last+1)
			for b := range c.Buckets {
				c.Buckets[b] = c.Buckets[b].cut(first, last+1)
			}
		}
	}
	h.From, h.Polls = h.From.Add(time.Duration(first)*h.Step), last+1-first
}

// commonBounds are the bounds that were there nearly all the time, rising and without +Inf. Buckets that came or went with a deployment are
// joined with the next ones.
func commonBounds(seen map[float64]int) []float64 {
	most := 0
	for _, n := range seen {
		most = max(most, n)
	}
	var out []float64
	for bound, n := range seen {
		if bound < inf && float64(n) >= 0.9*float64(most) {
			out = append(out, bound)
		}
	}
	slices.Sort(out)
	return out
}

// fill turns the observations up to each bound into those of each bucket.
func (b *Builder) fill(metric, unit int, bounds []float64) {
	columns := make([]Column, len(bounds)+1)
	for i, bound := range append(slices.Clone(bounds), inf) {
		of := b.buckets[unit][bound]
		if held := slices.IndexFunc(of, func(u *upTo) bool { return u.metric == metric }); held >= 0 {
			columns[i] = of[held].column
		}
	}
	c := &b.h.Units[unit].Metrics[metric]
	for poll := range b.h.Polls {
		below := 0.0
		for i := range columns {
			if n := columns[i].At(poll); n > 0 {
				columns[i].page(poll)[poll%pageSize] = float32(max(0, n-below))
				below = max(below, n)
			}
		}
		if below > 0 {
			c.N.add(poll, below)
		}
	}
	c.Bounds, c.Buckets = bounds, columns
}

// countRequests takes the metric with the most trials for the requests where none were counted.
func (u *Unit) countRequests(polls int) {
	if !u.Requests.empty() {
		return
	}
	most := 0.0
	for i := range u.Metrics {
		if n := u.Metrics[i].N.sum(0, polls); n > most {
			most, u.Requests = n, u.Metrics[i].N
		}
	}
}

// spread hashes a name evenly: FNV-1a with the finaliser of MurmurHash3, as FNV alone is biased on names that differ in their last digits.
func spread(name, salt string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(salt))
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(name))
	x := h.Sum64()
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
