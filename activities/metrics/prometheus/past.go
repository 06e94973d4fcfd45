package prometheus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/rollout"
)

// PastRequest says what is wanted of one version's past.
type PastRequest struct {
	Agent, Version string
	Metrics        []metrics.Metric // of kind value has no past, and is left out
	From, To       time.Time
	UnitLabel      string // its values tell units apart, such as pods or users; empty: there is one unit, named ""
}

// Sink takes what counters grew by up to a moment.
type Sink interface {
	// Add adds trials and events of a metric, or observations and their sum. total_requests are the requests.
	Add(at time.Time, unit, metric string, n, x float64)
	// AddBucket adds the observations of a metric up to a bound, those of lower buckets included; +Inf for all.
	AddBucket(at time.Time, unit, metric string, bound, n float64)
}

// PastReport is what was met in the past.
type PastReport struct {
	Series  int // that were read
	Samples int
	Resets  int // of counters, when their process began anew
	Gaps    int // in the scrapes of a series' target, of more than maxGap: what it grew by in them is left out, as nobody knows when
}

// Bounds of reading the past.
const (
	firstChunk  = time.Hour
	maxChunk    = 12 * time.Hour
	fewSamples  = 200_000 // in one answer: more may be asked at once
	maxGap      = 5 * time.Minute
	busyTries   = 5
	maxBusyWait = time.Minute
)

// Past reads the raw samples between two moments, piece by piece as answers allow, and hands to the sink what every series grew by from
// sample to sample, resets taken out as Sample does. A series' first sample is a position only, unless its target was there before or its
// process began within the time: then all of it was counted in it. Errors: *metrics.Rejected, or a fault that did not pass.
func (p *Provider) Past(ctx context.Context, request PastRequest, sink Sink) (PastReport, error) {
	w, matchers, err := newWalk(request, sink)
	if err != nil {
		return PastReport{}, err
	}
	from, to := request.From.UnixMilli(), request.To.UnixMilli()
	chunk, most := firstChunk.Milliseconds(), maxChunk.Milliseconds()
	for from < to {
		at := min(to, from+chunk)
		n, err := p.pastChunk(ctx, w, matchers, from, at)
		switch {
		case errors.Is(err, errTooMuch) && chunk > minWindow.Milliseconds():
			chunk = max(minWindow.Milliseconds(), (at-from)/2)
			most = chunk
			continue
		case err != nil:
			return w.report, fmt.Errorf("read the samples up to %s: %w", time.UnixMilli(at).UTC().Format(time.RFC3339), err)
		}
		if n < fewSamples {
			chunk = min(most, 2*chunk)
		}
		from = at
	}
	w.report.Series = len(w.series)
	return w.report, nil
}

// pastChunk reads the samples of (from, at], and returns how many there were.
func (p *Provider) pastChunk(ctx context.Context, w *walk, matchers string, from, at int64) (int, error) {
	series, err := p.patiently(ctx, matchers, at, at-from)
	if err != nil || len(series) == 0 {
		return 0, err
	}
	var starts model.Matrix
	if of := targetMatchers(series); of != "" {
		if starts, err = p.patiently(ctx, of, at, at-from); err != nil {
			return 0, err
		}
	}
	return w.take(series, byTarget(starts))
}

// patiently is samples, again when the server is busy.
func (p *Provider) patiently(ctx context.Context, matchers string, at, window int64) (model.Matrix, error) {
	for try := 1; ; try++ {
		out, err := p.source.samples(ctx, matchers, at, window)
		var busy *metrics.Busy
		if !errors.As(err, &busy) || try == busyTries {
			return out, err
		}
		timer := time.NewTimer(min(busy.RetryAfter, maxBusyWait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}

// ScrapeInterval is how far the samples of the version's requests are apart, usually, in the latest of the time that has any. Errors:
// *metrics.Rejected when there are none; a passing fault.
func (p *Provider) ScrapeInterval(ctx context.Context, request PastRequest) (time.Duration, error) {
	plan, err := request.plan()
	if err != nil {
		return 0, err
	}
	only := fmt.Sprintf("__name__=%q,%s=%q,%s=%q", plan.requests.events.name, agentLabel, request.Agent, versionLabel, request.Version)
	whole := request.To.Sub(request.From)
	for span := min(whole, 10*time.Minute); ; span = min(whole, 6*span) {
		series, err := p.patiently(ctx, only, request.To.UnixMilli(), span.Milliseconds())
		if err != nil {
			return 0, err
		}
		var apart []int64
		for _, s := range series {
			for i := 1; i < len(s.Values); i++ {
				apart = append(apart, int64(s.Values[i].Timestamp-s.Values[i-1].Timestamp))
			}
		}
		if len(apart) > 0 {
			slices.Sort(apart)
			return time.Duration(apart[len(apart)/2]) * time.Millisecond, nil
		}
		if span == whole {
			return 0, &metrics.Rejected{Reason: fmt.Sprintf("prometheus at %s has no samples of %s for version %s of %s from %s to %s",
				p.source.host, plan.requests.events.name, request.Version, request.Agent,
				request.From.UTC().Format(time.RFC3339), request.To.UTC().Format(time.RFC3339))}
		}
	}
}

// plan is where the numbers are. Errors: *metrics.Rejected.
func (r PastRequest) plan() (*plan, error) {
	for what, name := range map[string]string{"agent": r.Agent, "version": r.Version} {
		if !rollout.ValidName(name) {
			return nil, &metrics.Rejected{Reason: fmt.Sprintf("%s %q: want %s", what, name, rollout.NamePattern)}
		}
	}
	if !r.From.Before(r.To) {
		return nil, &metrics.Rejected{Reason: fmt.Sprintf("from %s to %s is no time", r.From, r.To)}
	}
	if r.UnitLabel != "" && labelName.FindString(r.UnitLabel) != r.UnitLabel {
		return nil, &metrics.Rejected{Reason: fmt.Sprintf("%q is not the name of a label, want one such as pod", r.UnitLabel)}
	}
	return newPlan(metrics.Request{Agent: r.Agent, Stable: r.Version, Metrics: r.Metrics})
}

// walk goes through the samples from the oldest to the newest.
type walk struct {
	plan    *plan
	label   model.LabelName
	sink    Sink
	from    float64 // seconds, when the time began
	series  map[hash]*walked
	scraped map[hash][]model.Time // when each target was scraped: in this chunk, and the last time before it
	report  PastReport
}

// walked is a series with its last sample.
type walked struct {
	labels model.Metric
	unit   string
	target hash
	parts  []part
	at     model.Time
	value  float64
	start  float64 // of its process, if known
	known  bool
}

// part is what a series is of a metric.
type part struct {
	metric string
	role   role
	bound  float64 // of buckets
}

type role int

const (
	trial role = iota
	event
	request // a trial and an event in one
	bucket
)

func newWalk(request PastRequest, sink Sink) (*walk, string, error) {
	plan, err := request.plan()
	if err != nil {
		return nil, "", err
	}
	maps.DeleteFunc(plan.metrics, func(_ string, p *places) bool { return p.query != nil })
	w := &walk{
		plan: plan, label: model.LabelName(request.UnitLabel), sink: sink, from: float64(request.From.UnixMilli()) / 1000,
		series: map[hash]*walked{}, scraped: map[hash][]model.Time{},
	}
	return w, plan.matchers(metrics.Request{Agent: request.Agent, Stable: request.Version}), nil
}

// take counts the samples of one chunk, and returns how many there were.
func (w *walk) take(matrix model.Matrix, starts map[hash][]model.SamplePair) (int, error) {
	w.note(matrix) // first: what is new in its target must not depend on the order
	n := 0
	for _, s := range matrix {
		h := seriesOf(s.Metric)
		state := w.series[h]
		if state == nil {
			unit := string(s.Metric[w.label])
			if w.label != "" && unit == "" {
				return 0, &metrics.Rejected{Reason: fmt.Sprintf("series %s has no label %s", s.Metric, w.label)}
			}
			state = &walked{labels: s.Metric, unit: unit, target: targetOf(s.Metric), parts: w.plan.partsOf(s.Metric)}
			w.series[h] = state
		}
		n += len(s.Values)
		w.follow(state, s.Values, starts[state.target])
	}
	w.report.Samples += n
	return n, nil
}

// note keeps when targets were scraped.
func (w *walk) note(matrix model.Matrix) {
	times := map[hash]map[model.Time]bool{}
	for _, s := range matrix {
		t := targetOf(s.Metric)
		if times[t] == nil {
			times[t] = map[model.Time]bool{}
		}
		for _, v := range s.Values {
			times[t][v.Timestamp] = true
		}
	}
	for t, in := range times {
		if before := w.scraped[t]; len(before) > 0 {
			in[before[len(before)-1]] = true
		}
		w.scraped[t] = slices.Sorted(maps.Keys(in))
	}
}

// before is when a target was scraped before a moment; 0: never.
func (w *walk) before(target hash, at model.Time) model.Time {
	scraped := w.scraped[target]
	i, _ := slices.BinarySearch(scraped, at)
	if i == 0 {
		return 0
	}
	return scraped[i-1]
}

// follow counts the samples of one series.
func (w *walk) follow(s *walked, values, starts []model.SamplePair) {
	next := 0 // of starts
	for _, sample := range values {
		value := float64(sample.Value)
		if math.IsNaN(value) || math.IsInf(value, 0) || (s.at != 0 && sample.Timestamp <= s.at) {
			continue
		}
		for next < len(starts) && starts[next].Timestamp <= sample.Timestamp {
			next++
		}
		began, known := 0.0, next > 0
		if known {
			began = float64(starts[next-1].Value)
		}
		grew := w.grew(s, sample, began, known)
		s.at, s.value, s.start, s.known = sample.Timestamp, value, began, known
		if grew != 0 {
			w.emit(s, sample.Timestamp.Time(), grew)
		}
	}
}

// grew is what a series grew by up to a sample.
func (w *walk) grew(s *walked, sample model.SamplePair, began float64, known bool) float64 {
	value := float64(sample.Value)
	before := w.before(s.target, sample.Timestamp)
	switch {
	case before == 0 && known && began > w.from:
		return value // of a process that began since
	case before == 0:
		return 0
	}
	grew := value // of a series that is new in its target
	if s.at != 0 {
		restarted := known && s.known && math.Abs(began-s.start) > startJitter
		grew = grown(s.labels, s.value, value, known && s.known, restarted)
		if restarted || value < s.value && grew == value {
			w.report.Resets++
		}
	}
	if time.Duration(sample.Timestamp-before)*time.Millisecond > maxGap {
		w.report.Gaps++
		return 0
	}
	return grew
}

// emit hands an increment to the sink.
func (w *walk) emit(s *walked, at time.Time, grew float64) {
	for _, p := range s.parts {
		switch p.role {
		case trial:
			w.sink.Add(at, s.unit, p.metric, grew, 0)
		case event:
			w.sink.Add(at, s.unit, p.metric, 0, grew)
		case request:
			w.sink.Add(at, s.unit, p.metric, grew, grew)
		case bucket:
			w.sink.AddBucket(at, s.unit, p.metric, p.bound, grew)
		}
	}
}

// partsOf is what a series is of the plan's metrics.
func (p *plan) partsOf(labels model.Metric) []part {
	var out []part
	if p.requests.events.matches(labels) {
		out = append(out, part{metric: total, role: request})
	}
	for _, name := range slices.Sorted(maps.Keys(p.metrics)) {
		if name == total {
			continue
		}
		places := p.metrics[name]
		for _, of := range []struct {
			selector *selector
			role     role
		}{{places.trials, trial}, {places.count, trial}, {places.events, event}, {places.sum, event}} {
			if of.selector != nil && of.selector.matches(labels) {
				out = append(out, part{metric: name, role: of.role})
			}
		}
		if places.histogram != nil && places.histogram.matches(labels) {
			if bound := bucketBound(counted{labels: labels}); !math.IsNaN(bound) {
				out = append(out, part{metric: name, role: bucket, bound: bound})
			}
		}
	}
	return out
}

// String is the report in words.
func (r PastReport) String() string {
	words := []string{fmt.Sprintf("%d samples of %d series", r.Samples, r.Series)}
	if r.Resets > 0 {
		words = append(words, fmt.Sprintf("%d resets", r.Resets))
	}
	if r.Gaps > 0 {
		words = append(words, fmt.Sprintf("%d gaps of more than %s, left out", r.Gaps, maxGap))
	}
	return strings.Join(words, ", ")
}
