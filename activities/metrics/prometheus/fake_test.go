package prometheus

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/common/model"
)

// store is a Prometheus: samples in memory, and the three kinds of query that the provider asks, evaluated as Prometheus 3
// does: a range is open on the left, and samples that are not yet ingested do not exist.
type store struct {
	t   testing.TB
	url string

	mu      sync.Mutex
	series  map[string]*stored
	canned  map[string]string // query → data of the answer
	queries []string
	fault   http.HandlerFunc
	limit   int // samples in one answer; 0: none
}

type stored struct {
	labels  model.Metric
	samples []sample
}

type sample struct {
	ts      int64
	value   float64
	visible bool
}

func newStore(t testing.TB) *store {
	s := &store{t: t, series: map[string]*stored{}, canned: map[string]string{}}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

// add appends a sample. One that is not visible is still on its way, until arrive.
func (s *store) add(labels model.Metric, ts int64, value float64, visible bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := labels.String()
	if s.series[key] == nil {
		s.series[key] = &stored{labels: labels.Clone()}
	}
	s.series[key].samples = append(s.series[key].samples, sample{ts, value, visible})
}

func (s *store) arrive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, series := range s.series {
		for i := range series.samples {
			series.samples[i].visible = true
		}
	}
}

func (s *store) fail(h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = h
}

var (
	rangeQuery = regexp.MustCompile(`^\{(.*)\}\[(\d+)ms\]$`)
	lastQuery  = regexp.MustCompile(`^last_over_time\(\{(.*)\}\[(\d+)ms\]\)$`)
	oneMatcher = regexp.MustCompile(`^(\w+)(=~|=)("(?:[^"\\]|\\.)*")(?:,|$)`)
)

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	fault := s.fault
	s.mu.Unlock()
	if fault != nil {
		fault(w, r)
		return
	}
	query, at := r.FormValue("query"), r.FormValue("time")
	seconds, err := strconv.ParseFloat(at, 64)
	if r.URL.Path != "/api/v1/query" || err != nil {
		http.Error(w, "bad request", http.StatusNotFound)
		return
	}
	ts := int64(math.Round(seconds * 1000))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queries = append(s.queries, query)
	if data, ok := s.canned[query]; ok {
		_, _ = fmt.Fprintf(w, `{"status":"success","data":%s}`, data)
		return
	}
	if m := rangeQuery.FindStringSubmatch(query); m != nil {
		window, _ := strconv.ParseInt(m[2], 10, 64)
		s.matrix(w, m[1], ts-window, ts)
		return
	}
	if m := lastQuery.FindStringSubmatch(query); m != nil {
		window, _ := strconv.ParseInt(m[2], 10, 64)
		s.last(w, m[1], ts-window, ts)
		return
	}
	apiError(w, http.StatusBadRequest, "bad_data", "parse error: "+query)
}

func apiError(w http.ResponseWriter, status int, kind, text string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"status": "error", "errorType": kind, "error": text})
}

func answer(w http.ResponseWriter, kind string, result any) {
	_ = json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": map[string]any{"resultType": kind, "result": result}})
}

func pairOf(p sample) [2]any {
	return [2]any{float64(p.ts) / 1000, strconv.FormatFloat(p.value, 'f', -1, 64)}
}

// pick calls fn with every series that the matchers pick and its visible samples in (after, upTo].
func (s *store) pick(matchers string, after, upTo int64, fn func(*stored, []sample)) {
	type match struct {
		label string
		re    *regexp.Regexp
	}
	var all []match
	for rest := matchers; rest != ""; {
		m := oneMatcher.FindStringSubmatch(rest)
		if m == nil {
			s.t.Errorf("matchers %q are not understood", rest)
			return
		}
		value, err := strconv.Unquote(m[3])
		if err != nil {
			s.t.Error(err)
		}
		if m[2] == "=" {
			value = regexp.QuoteMeta(value)
		}
		all = append(all, match{m[1], regexp.MustCompile("^(?:" + value + ")$")})
		rest = rest[len(m[0]):]
	}
	for _, series := range s.series {
		if slices.ContainsFunc(all, func(m match) bool { return !m.re.MatchString(string(series.labels[model.LabelName(m.label)])) }) {
			continue
		}
		var in []sample
		for _, p := range series.samples {
			if p.visible && p.ts > after && p.ts <= upTo {
				in = append(in, p)
			}
		}
		slices.SortStableFunc(in, func(a, b sample) int { return cmp.Compare(a.ts, b.ts) })
		if len(in) > 0 {
			fn(series, in)
		}
	}
}

func (s *store) matrix(w http.ResponseWriter, matchers string, after, upTo int64) {
	result := []any{}
	n := 0
	s.pick(matchers, after, upTo, func(series *stored, in []sample) {
		var values [][2]any
		for _, p := range in {
			values = append(values, pairOf(p))
			n++
		}
		result = append(result, map[string]any{"metric": series.labels, "values": values})
	})
	if s.limit > 0 && n > s.limit {
		apiError(w, http.StatusUnprocessableEntity, "execution", "query processing would load too many samples into memory in query execution")
		return
	}
	answer(w, "matrix", result)
}

func (s *store) last(w http.ResponseWriter, matchers string, after, upTo int64) {
	result := []any{}
	s.pick(matchers, after, upTo, func(series *stored, in []sample) {
		p := in[len(in)-1]
		p.ts = upTo // an instant vector has the time of its evaluation
		result = append(result, map[string]any{"metric": series.labels, "value": pairOf(p)})
	})
	answer(w, "vector", result)
}

func (s *store) asked(part string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, q := range s.queries {
		if strings.Contains(q, part) {
			n++
		}
	}
	return n
}
