package calibration

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// The columns of a file of polls.
const (
	columnTime   = "time"
	columnUnit   = "unit"
	columnUser   = "user"
	columnMetric = "metric"
	columnN      = "n"
	columnX      = "x"
	bucketPrefix = "le:"
)

const (
	csvForm    = "time,metric,n,x, and perhaps unit or user, and buckets such as le:0.5"
	leastStep  = time.Second
	mostPolls  = 2_000_000
	mostCells  = 4_000_000 // polls of all units together: what is kept in memory
	gridJitter = 0.1       // of a step, by how much a time may be off
)

// ReadCSV reads polls of one version's counters: one line per poll, unit and metric, in any order, after a header.
//
//	time    the end of the poll: RFC 3339, or seconds since 1970. What most are apart, in whole seconds, is the step, and all times
//	        are on its grid; a poll that is not there had no requests.
//	unit    optional: the instance that was counted. user in its place: a user or session that stays with one version.
//	metric  the name of one of the given metrics. total_requests are the requests; without it the metric with the most trials is taken.
//	n, x    what the counters grew by in the poll: trials and events, or observations and their sum. x is empty of quantiles, and may be of
//	        total_requests.
//	le:B    of quantiles: observations of at most B, as Prometheus's buckets count. n are all observations.
//
// The reading is strict. The error is Problems, with everything that is wrong, or a fault of the reader.
func ReadCSV(name string, from io.Reader, metrics []analysis.Metric) (*History, error) {
	r := &csvReader{name: name, metrics: metrics, seen: map[string]int{}}
	if err := r.read(from); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	start, step, polls := r.grid()
	if len(r.problems) > 0 {
		slices.SortStableFunc(r.problems, func(a, b Problem) int { return a.Line - b.Line })
		return nil, r.problems
	}
	b := NewBuilder(metrics, start, start.Add(time.Duration(polls)*step), step, r.by)
	for _, row := range r.rows {
		at := start.Add(time.Duration(math.Round(float64(row.at.Sub(start))/float64(step))) * step)
		if row.upTo == nil {
			b.Add(at, row.unit, row.metric, row.n, row.x)
			continue
		}
		for i, n := range row.upTo {
			b.AddBucket(at, row.unit, row.metric, r.bounds[i], n)
		}
		b.AddBucket(at, row.unit, row.metric, inf, row.n)
	}
	return b.History(), nil
}

type csvReader struct {
	name     string
	metrics  []analysis.Metric
	problems Problems
	columns  map[string]int
	bounds   []float64 // of the le: columns
	at       []int     // their columns
	by       By
	rows     []csvRow
	seen     map[string]int // line of time, unit and metric
}

type csvRow struct {
	line         int
	at           time.Time
	unit, metric string
	n, x         float64
	upTo         []float64 // of a quantile; nil otherwise
}

func (r *csvReader) problem(line int, column, format string, args ...any) {
	r.problems = append(r.problems, Problem{r.name, line, column, fmt.Sprintf(format, args...)})
}

// read reads all lines. Its error is a fault of the reader.
func (r *csvReader) read(from io.Reader) error {
	in := csv.NewReader(from)
	in.FieldsPerRecord = -1
	in.ReuseRecord = true
	header, err := in.Read()
	switch {
	case errors.Is(err, io.EOF):
		r.problem(1, "", "the file is empty, want a header: %s", csvForm)
		return nil
	case err != nil:
		return r.fault(err)
	}
	if !r.header(header) {
		return nil // nothing can be told of the lines
	}
	for {
		record, err := in.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return r.fault(err)
		}
		line, _ := in.FieldPos(0)
		r.line(line, record)
	}
}

// fault tells a line that is no CSV, after which nothing is read, from a reader that failed.
func (r *csvReader) fault(err error) error {
	var parse *csv.ParseError
	if !errors.As(err, &parse) {
		return err
	}
	r.problem(parse.Line, "", "not CSV at column %d: %v", parse.Column, parse.Err)
	return nil
}

// header reads the names of the columns, and reports whether lines can be read by them.
func (r *csvReader) header(names []string) bool {
	r.columns = map[string]int{}
	for i, name := range names {
		name = strings.TrimSpace(name)
		if i == 0 {
			name = strings.TrimPrefix(name, "\ufeff") // of spreadsheets
		}
		if _, twice := r.columns[name]; twice {
			r.problem(1, name, "the column is there twice")
			continue
		}
		r.columns[name] = i
		text, bucket := strings.CutPrefix(name, bucketPrefix)
		switch {
		case bucket:
			r.bucket(name, text, i)
		case !slices.Contains([]string{columnTime, columnUnit, columnUser, columnMetric, columnN, columnX}, name):
			r.problem(1, "", "%q is not a column, want %s", name, csvForm)
		}
	}
	for _, name := range []string{columnTime, columnMetric, columnN, columnX} {
		if _, ok := r.columns[name]; !ok {
			r.problem(1, name, "the column is missing, want %s", csvForm)
		}
	}
	_, unit := r.columns[columnUnit]
	_, user := r.columns[columnUser]
	switch {
	case unit && user:
		r.problem(1, columnUser, "unit is there too, want one of them")
	case unit:
		r.by = Instances
	case user:
		r.by = Users
	default:
		r.by = Whole
	}
	return len(r.problems) == 0
}

// bucket reads the header of a bucket. +Inf may be there, and says what n says.
func (r *csvReader) bucket(name, text string, column int) {
	bound, err := strconv.ParseFloat(text, 64)
	switch {
	case err == nil && math.IsInf(bound, 1):
		r.problem(1, name, "n says this already, want finite bounds only")
	case err != nil || math.IsNaN(bound) || math.IsInf(bound, 0):
		r.problem(1, name, "%q is not a number, want an upper bound such as le:0.5", text)
	case len(r.bounds) > 0 && bound <= r.bounds[len(r.bounds)-1]:
		r.problem(1, name, "not above the bound before it, want rising bounds")
	default:
		r.bounds, r.at = append(r.bounds, bound), append(r.at, column)
	}
}

// line reads one line.
func (r *csvReader) line(line int, record []string) {
	if len(record) != len(r.columns) {
		r.problem(line, "", "%d fields, want %d as in the header", len(record), len(r.columns))
		return
	}
	before := len(r.problems)
	field := func(column string) string {
		if i, ok := r.columns[column]; ok {
			return strings.TrimSpace(record[i])
		}
		return ""
	}
	row := csvRow{line: line, metric: field(columnMetric), unit: field(columnUnit) + field(columnUser)}
	var err error
	if row.at, err = parseTime(field(columnTime)); err != nil {
		r.problem(line, columnTime, "%v", err)
	}
	if row.unit == "" && r.by != Whole {
		r.problem(line, columnUnit, "is empty, want a name in every line or no such column")
	}
	i := slices.IndexFunc(r.metrics, func(m analysis.Metric) bool { return m.Name == row.metric })
	switch {
	case row.metric == analysis.TotalRequests:
		r.counts(&row, analysis.Metric{Name: row.metric, Kind: analysis.Count}, field)
	case i < 0:
		r.problem(line, columnMetric, "%q is not a metric here, want one of %s", clip(row.metric), r.names())
		return
	case r.metrics[i].Kind == analysis.Quantile:
		r.histogram(&row, field, record)
	default:
		r.counts(&row, r.metrics[i], field)
	}
	r.once(row)
	if len(r.problems) == before {
		r.rows = append(r.rows, row)
	}
}

// once wants every moment of a metric once. Whether two moments are of one poll shows when its length is known.
func (r *csvReader) once(row csvRow) {
	key := strconv.FormatInt(row.at.UnixNano(), 10) + "\x00" + row.unit + "\x00" + row.metric
	if first, ok := r.seen[key]; ok {
		r.problem(row.line, "", "the same time, unit and metric as line %d, want every poll once", first)
		return
	}
	r.seen[key] = row.line
}

func (r *csvReader) names() string {
	names := []string{analysis.TotalRequests}
	for _, m := range r.metrics {
		if m.Name != analysis.TotalRequests {
			names = append(names, m.Name)
		}
	}
	return strings.Join(names, ", ")
}

// counts reads n and x of what is not a quantile.
func (r *csvReader) counts(row *csvRow, m analysis.Metric, field func(string) string) {
	var ok, also bool
	row.n, ok = r.count(row.line, columnN, field(columnN))
	if m.Name == analysis.TotalRequests && field(columnX) == "" {
		row.x = row.n
		return
	}
	row.x, also = r.count(row.line, columnX, field(columnX))
	switch {
	case !ok || !also:
	case m.Kind == analysis.Ratio && row.x > row.n:
		r.problem(row.line, columnX, "%v events of %v trials, want at most as many", row.x, row.n)
	case row.x > 0 && row.n == 0 && m.Kind == analysis.Mean:
		r.problem(row.line, columnX, "a sum of %v of no observations, want 0", row.x)
	}
}

// histogram reads n and the buckets of a quantile.
func (r *csvReader) histogram(row *csvRow, field func(string) string, record []string) {
	var ok bool
	row.n, ok = r.count(row.line, columnN, field(columnN))
	if x := field(columnX); x != "" {
		r.problem(row.line, columnX, "%q, want it empty: a quantile has buckets", clip(x))
	}
	if len(r.bounds) == 0 {
		r.problem(row.line, columnMetric, "%s is a quantile, want columns for its buckets, such as le:0.5", row.metric)
		return
	}
	below := 0.0
	row.upTo = make([]float64, len(r.bounds))
	for i, column := range r.at {
		name := bucketPrefix + strconv.FormatFloat(r.bounds[i], 'g', -1, 64)
		n, is := r.count(row.line, name, strings.TrimSpace(record[column]))
		switch {
		case !is:
			return
		case n < below:
			r.problem(row.line, name, "%v, fewer than the %v of the bucket before: want the observations up to each bound", n, below)
			return
		}
		row.upTo[i], below = n, n
	}
	if ok && below > row.n {
		r.problem(row.line, columnN, "%v, fewer than the %v of the last bucket: want all observations", row.n, below)
	}
}

// mostCount bounds an increment: above it, float64 no longer tells whole numbers apart.
const mostCount = 1 << 53

func (r *csvReader) count(line int, column, text string) (float64, bool) {
	v, err := strconv.ParseFloat(text, 64)
	switch {
	case text == "":
		r.problem(line, column, "is empty, want what the counter grew by in this poll")
	case err != nil || math.IsNaN(v) || math.IsInf(v, 0):
		r.problem(line, column, "%q is not a number, want what the counter grew by in this poll", clip(text))
	case v < 0 || v > mostCount:
		r.problem(line, column, "%s, want 0 to 2^53: what the counter grew by, with resets taken out", text)
	default:
		return v, true
	}
	return 0, false
}

func parseTime(text string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		if t.Year() < 1970 || t.Year() > 2200 {
			return t, fmt.Errorf("%q is in the year %d, want one from 1970 to 2200", clip(text), t.Year())
		}
		return t, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil && s >= 0 && s < 7e9 {
		return time.UnixMilli(int64(math.Round(s * 1000))), nil
	}
	return time.Time{}, fmt.Errorf("%q is not a time, want 2026-03-01T12:00:00Z or seconds since 1970", clip(text))
}

// grid finds the step of the polls, and where they begin, and wants every time on it.
func (r *csvReader) grid() (start time.Time, step time.Duration, polls int) {
	if len(r.problems) > 0 {
		return
	}
	if len(r.rows) == 0 {
		r.problem(1, "", "there are no polls after the header")
		return
	}
	slices.SortStableFunc(r.rows, func(a, b csvRow) int { return a.at.Compare(b.at) })
	units := map[string]bool{}
	apart := map[time.Duration]int{}
	for i, row := range r.rows {
		units[row.unit] = true
		if i > 0 {
			apart[row.at.Sub(r.rows[i-1].at).Round(time.Second)]++ // scrapes are off by milliseconds
		}
	}
	for d, n := range apart {
		if d > 0 && (n > apart[step] || step == 0 || n == apart[step] && d < step) {
			step = d
		}
	}
	first, last := r.rows[0], r.rows[len(r.rows)-1]
	if step < leastStep {
		r.problem(last.line, columnTime, "all polls are within %s of each other, want several, %s apart or more", leastStep, leastStep)
		return
	}
	n := float64(last.at.Sub(first.at))/float64(step) + 1
	columns := float64(len(units))
	if r.by == Users {
		columns = min(columns, cells)
	}
	if n > mostPolls || n*columns > mostCells {
		r.problem(last.line, columnTime, "%.0f polls at steps of %s, of each of %.0f units: want at most %d polls, and %d of all units together: join polls", n, step, columns, mostPolls, mostCells)
		return
	}
	type cell struct {
		poll         int
		unit, metric string
	}
	seen := map[cell]int{} // its line
	for _, row := range r.rows {
		k := float64(row.at.Sub(first.at)) / float64(step)
		if math.Abs(k-math.Round(k)) > gridJitter {
			r.problem(row.line, columnTime, "%s is not on the grid of %s that begins with line %d: want polls of one length", row.at.UTC().Format(time.RFC3339), step, first.line)
		}
		c := cell{int(math.Round(k)), row.unit, row.metric}
		if other, twice := seen[c]; twice {
			one, two := min(other, row.line), max(other, row.line)
			r.problem(two, "", "the same poll, unit and metric as line %d, want every poll once", one)
			continue
		}
		seen[c] = row.line
	}
	return first.at.Add(-step), step, int(math.Round(n))
}
