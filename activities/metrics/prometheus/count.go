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
)

// Bounds of one poll.
const (
	lookback   = 5 * time.Minute // at the first poll: which targets are there
	maxHistory = 24 * time.Hour  // how far back a series is looked for that was not seen at the poll before
	maxWindow  = time.Hour       // of samples that one poll catches up; the next one takes the next
	minWindow  = time.Second
	// startTime tells when a target's process began: a counter that has overtaken its old value since a restart looks like one
	// that has only grown.
	startTime = "process_start_time_seconds"
	// startJitter is by how many seconds the start time of one process may vary: the kernel computes it from two clocks.
	startJitter = 1.5
)

// counted is a series with what it grew by in (cursor, at].
type counted struct {
	labels   model.Metric
	increase float64
}

// window is the samples of one poll, with what is needed to count them.
type window struct {
	from, at int64
	series   model.Matrix
	starts   map[hash][]model.SamplePair // of each target, oldest first
	before   map[hash]float64            // last values before from of series that seemed to be new
}

// position is the cursor of a first poll: every sample there is has been counted.
func (s *source) position(ctx context.Context, matchers string, at int64) (*cursor, error) {
	series, err := s.samples(ctx, matchers, at, lookback.Milliseconds())
	if err != nil {
		return nil, err
	}
	c := &cursor{at: at, targets: map[hash]int64{}, late: map[hash]int64{}}
	return c.advance(at, series), nil
}

// advance is the cursor after series have been counted up to at.
func (c *cursor) advance(at int64, series model.Matrix) *cursor {
	next := &cursor{at: at, targets: maps.Clone(c.targets), late: map[hash]int64{}}
	seen := map[hash]int64{}
	for _, s := range series {
		if len(s.Values) == 0 {
			continue
		}
		t, h := targetOf(s.Metric), seriesOf(s.Metric)
		last := int64(s.Values[len(s.Values)-1].Timestamp)
		if ts, ok := c.late[h]; ok {
			last = max(last, ts)
		}
		seen[h] = last
		next.targets[t] = max(next.targets[t], last)
	}
	scrapes := lastButOne(series, next.targets)
	for _, s := range series {
		t, h := targetOf(s.Metric), seriesOf(s.Metric)
		newest := next.targets[t]
		if last, ok := seen[h]; ok && last < newest && last >= min(scrapes[t], newest-grace.Milliseconds()) && last >= at-patience.Milliseconds() {
			next.late[h] = last
		}
	}
	next.trim()
	return next
}

// lastButOne is when each target was scraped before newest.
func lastButOne(series model.Matrix, newest map[hash]int64) map[hash]int64 {
	out := map[hash]int64{}
	for _, s := range series {
		t := targetOf(s.Metric)
		for _, p := range s.Values {
			if ts := int64(p.Timestamp); ts < newest[t] {
				out[t] = max(out[t], ts)
			}
		}
	}
	return out
}

// count is what every series grew by since the cursor, and the cursor after it. When there is more than one answer can hold,
// it counts a part, and the cursor says up to when.
func (s *source) count(ctx context.Context, matchers string, c *cursor, now int64) ([]counted, *cursor, error) {
	at := min(max(now, c.at), c.at+maxWindow.Milliseconds())
	for {
		w, err := s.window(ctx, matchers, c, at)
		if err == nil {
			return w.count(c), c.advance(at, w.series), nil
		}
		if !errors.Is(err, errTooMuch) {
			return nil, nil, err
		}
		half := c.at + (at-c.at)/2
		if half-c.at < minWindow.Milliseconds() {
			return nil, nil, fmt.Errorf("%w, even for %d ms: want fewer series or a larger limit", err, at-c.at)
		}
		at = half
	}
}

// window asks for the samples up to at, for start times, and for what lies before where it matters.
func (s *source) window(ctx context.Context, matchers string, c *cursor, at int64) (*window, error) {
	w := &window{from: c.from(), at: at}
	for {
		var err error
		// One millisecond more: newer servers leave the range's beginning out.
		if w.series, err = s.samples(ctx, matchers, at, at-w.from+1); err != nil {
			return nil, err
		}
		// A target that was gone and is back may have samples further back than asked for.
		from := w.from
		for _, series := range w.series {
			if last, ok := c.last(targetOf(series.Metric), seriesOf(series.Metric)); ok {
				from = min(from, last)
			}
		}
		if from == w.from {
			break
		}
		w.from = from
	}
	if err := s.askStarts(ctx, w); err != nil {
		return nil, err
	}
	return w, s.askBefore(ctx, matchers, c, w)
}

// askStarts asks, after the samples themselves, when the processes behind them began.
func (s *source) askStarts(ctx context.Context, w *window) error {
	matchers := targetMatchers(w.series)
	if matchers == "" {
		return nil
	}
	starts, err := s.samples(ctx, matchers, w.at, w.at-w.from+1)
	w.starts = byTarget(starts)
	return err
}

// targetMatchers are matchers for the start times of the series' targets; "" when there are none.
func targetMatchers(series model.Matrix) string {
	out := []string{"__name__=" + `"` + startTime + `"`}
	for _, label := range []model.LabelName{"job", "instance"} {
		values := map[string]bool{}
		for _, s := range series {
			if v := string(s.Metric[label]); v != "" {
				values[v] = true
			}
		}
		if len(values) > 0 {
			out = append(out, oneOf(string(label), slices.Sorted(maps.Keys(values))))
		}
	}
	if len(out) == 1 {
		return ""
	}
	return strings.Join(out, ",")
}

// life is one process of a target, from its first scrape on.
type life struct {
	job, instance model.LabelValue
	began         int64 // milliseconds
}

// askBefore looks for the last value before the window of series that seem to be new, as far back as their process goes. Most
// are new indeed: a version's first requests. But one that was not scraped for a while would otherwise be counted whole again.
func (s *source) askBefore(ctx context.Context, matchers string, c *cursor, w *window) error {
	var fresh model.Matrix
	for _, series := range w.series {
		if len(series.Values) > 0 && w.pending(c, series) == 0 && series.Values[0].Value > 0 {
			fresh = append(fresh, series)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	history, err := s.history(ctx, fresh, w.at)
	if err != nil {
		return err
	}
	lives := map[life]bool{}
	w.before = map[hash]float64{}
	for _, series := range fresh {
		first := series.Values[0]
		starts := history[targetOf(series.Metric)]
		began := firstOf(starts, int64(first.Timestamp), w.at-maxHistory.Milliseconds())
		lives[life{series.Metric["job"], series.Metric["instance"], began}] = true
		if len(starts) > 0 && starts[0].Timestamp == first.Timestamp && float64(starts[0].Value)*1000 < float64(c.at-lookback.Milliseconds()) {
			// An old process, and Prometheus has nothing earlier of its target: a new target, or a new Prometheus. Nobody
			// knows when the process counted what it has.
			w.before[seriesOf(series.Metric)] = float64(first.Value)
		}
	}
	for l := range lives {
		if l.began >= w.from {
			continue // all of it is in the window
		}
		of := fmt.Sprintf("%s,job=%q,instance=%q", matchers, string(l.job), string(l.instance))
		last, err := s.vector(ctx, fmt.Sprintf("last_over_time({%s}[%dms])", of, w.from-l.began), w.from-1)
		if err != nil {
			return err
		}
		for _, sample := range last {
			w.before[seriesOf(sample.Metric)] = float64(sample.Value)
		}
	}
	return nil
}

// history is the start times of the series' targets for a day, or for as long as can be read at once.
func (s *source) history(ctx context.Context, series model.Matrix, at int64) (map[hash][]model.SamplePair, error) {
	matchers := targetMatchers(series)
	if matchers == "" {
		return nil, nil
	}
	for span := maxHistory; ; span /= 4 {
		starts, err := s.samples(ctx, matchers, at, span.Milliseconds())
		if errors.Is(err, errTooMuch) && span > time.Minute {
			continue
		}
		return byTarget(starts), err
	}
}

func byTarget(starts model.Matrix) map[hash][]model.SamplePair {
	out := make(map[hash][]model.SamplePair, len(starts))
	for _, series := range starts {
		out[targetOf(series.Metric)] = series.Values
	}
	return out
}

// firstOf is when the process that was scraped at ts was first scraped, by its target's start times; unknown when they do not
// say.
func firstOf(starts []model.SamplePair, ts, unknown int64) int64 {
	now := -1
	for i, p := range starts {
		if int64(p.Timestamp) <= ts {
			now = i
		}
	}
	if now < 0 {
		return unknown
	}
	first := now
	for first > 0 && math.Abs(float64(starts[first-1].Value-starts[now].Value)) <= startJitter {
		first--
	}
	return int64(starts[first].Timestamp)
}

// pending is the index of the first sample of the series that has not been counted. 0: none of those in the window has been.
func (w *window) pending(c *cursor, series *model.SampleStream) int {
	last, ok := c.last(targetOf(series.Metric), seriesOf(series.Metric))
	if !ok {
		return 0
	}
	i := 0
	for i < len(series.Values) && int64(series.Values[i].Timestamp) <= last {
		i++
	}
	return i
}

// count adds up what every series grew by: from sample to sample, and from zero after a reset.
func (w *window) count(c *cursor) []counted {
	out := make([]counted, 0, len(w.series))
	for _, series := range w.series {
		target := targetOf(series.Metric)
		i := w.pending(c, series)
		var previous, start float64 // of a series that begins: zero
		var known bool
		if i > 0 {
			previous = float64(series.Values[i-1].Value)
			start, known = w.startAt(target, series.Values[i-1].Timestamp)
		} else {
			previous = w.before[seriesOf(series.Metric)]
		}
		total := 0.0
		for _, sample := range series.Values[i:] {
			value := float64(sample.Value)
			if math.IsNaN(value) || math.IsInf(value, 0) {
				continue
			}
			began, ok := w.startAt(target, sample.Timestamp)
			total += grown(series.Metric, previous, value, known && ok, math.Abs(began-start) > startJitter)
			previous, start, known = value, began, ok
		}
		out = append(out, counted{labels: series.Metric, increase: total})
	}
	return out
}

// grown is what a counter grew by from one sample to the next. Told says that both processes' start times are known, and
// restarted that they differ. A sum may fall by itself, as of scores below zero, when its process is known to be the same.
func grown(labels model.Metric, previous, value float64, told, restarted bool) float64 {
	sum := strings.HasSuffix(string(labels[model.MetricNameLabel]), "_sum")
	switch {
	case told && restarted:
		return value
	case value >= previous || told && sum:
		return value - previous
	}
	return value
}

// startAt is when the process began that a sample of the target at ts came from.
func (w *window) startAt(target hash, ts model.Time) (float64, bool) {
	starts := w.starts[target]
	for i := len(starts) - 1; i >= 0; i-- {
		if starts[i].Timestamp <= ts {
			return float64(starts[i].Value), true
		}
	}
	return 0, false
}
