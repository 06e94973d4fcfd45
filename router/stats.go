package router

import (
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/aviary-rollouts/aviary/router/api"
)

// The bounds of label sets.
const (
	maxKinds = 20 // of safety violations, per version
	// Other stands for all label values beyond the bounds.
	Other = "other"
)

// The codes under which requests count that did not end with the agent's status.
const (
	CodeClientGone = 499 // the client went away, or its request was broken; not the agent's error
	codeOther      = 0   // a status outside 100 to 599
)

// bounds are the histograms' upper bounds in seconds: 1 ms to 120 s, each 1.1 times the one before, to four digits.
func bounds() []float64 {
	var out []float64
	for v := 0.001; v < 120; v *= 1.1 {
		digits := math.Pow(10, 3-math.Floor(math.Log10(v)))
		out = append(out, math.Round(v*digits)/digits)
	}
	return append(out, 120)
}

// Bounds are the upper bounds of the latency histograms' buckets in seconds, rising. There is one more bucket, beyond them.
func Bounds() []float64 { return bounds() }

// Stats count what one version of an agent does. All of it changes and is read under one lock, so that any reading is of one
// moment: as many latencies as requests. It is safe for concurrent use.
type Stats struct {
	agent, version string

	mu            sync.Mutex
	requests      map[int]int64 // by code
	total, errors int64
	latency, ttfb prometheus.Histogram
	conversations int64
	tasks         api.Tasks
	safety        map[string]int64
	satisfaction  api.Mean
	tokens        api.Mean
	cost          api.Mean
	tools         api.ToolCalls
}

func newStats(agent, version string) *Stats {
	labels := prometheus.Labels{"agent": agent, "version": version}
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name, Help: help, ConstLabels: labels, Buckets: bounds(),
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 200,
		})
	}
	return &Stats{
		agent: agent, version: version, requests: map[int]int64{}, safety: map[string]int64{},
		latency: histogram("agent_request_duration_seconds", "Time from a request to the end of its response."),
		ttfb:    histogram("agent_time_to_first_byte_seconds", "Time from a request to the first byte of its response's body."),
	}
}

// Outcome is how one request ended.
type Outcome struct {
	Code    int           // the status, or CodeClientGone
	Failed  bool          // the agent's fault: a 5xx, or a transport failure at any point
	Latency time.Duration // to the end of the response
	TTFB    time.Duration // to the first byte of its body; of the header if it has none
}

// Request counts one request that has ended.
func (s *Stats) Request(o Outcome) {
	if o.Code < 100 || o.Code > 599 {
		o.Code = codeOther
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[o.Code]++
	s.total++
	if o.Failed {
		s.errors++
	}
	s.latency.Observe(o.Latency.Seconds())
	s.ttfb.Observe(o.TTFB.Seconds())
}

// Conversation counts one conversation that began on this version.
func (s *Stats) Conversation() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conversations++
}

// Feedback counts f, which CheckFeedback has let pass.
func (s *Stats) Feedback(f api.Feedback) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch f.Task {
	case "":
	case "completed":
		s.tasks.Completed++
	case "failed":
		s.tasks.Failed++
	default:
		s.tasks.Other++
	}
	if kind := f.SafetyViolation; kind != "" {
		if _, known := s.safety[kind]; !known && (len(s.safety) >= maxKinds || !validName.MatchString(kind)) {
			kind = Other
		}
		s.safety[kind]++
	}
	add(&s.satisfaction, f.Satisfaction)
	add(&s.tokens, f.Tokens)
	add(&s.cost, f.CostUSD)
	if f.ToolCalls != nil {
		s.tools.OK += f.ToolCalls.OK
		s.tools.Error += f.ToolCalls.Error
	}
}

func add(m *api.Mean, v *float64) {
	if v != nil {
		m.Sum += *v
		m.Count++
	}
}

// Counter is what has been counted, all of one moment.
func (s *Stats) Counter() api.Counter {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := api.Counter{
		Requests: s.total, Errors: s.errors, Latency: bucketCounts(s.latency), TTFB: bucketCounts(s.ttfb),
		Conversations: s.conversations, Tasks: s.tasks, SafetyViolations: make(map[string]int64, len(s.safety)),
		Satisfaction: s.satisfaction, Tokens: s.tokens, CostUSD: s.cost, ToolCalls: s.tools,
	}
	for k, n := range s.safety {
		c.SafetyViolations[k] = n
	}
	return c
}

// bucketCounts are the counts of h's classic buckets, not cumulative, with the one beyond all bounds last.
func bucketCounts(h prometheus.Histogram) []int64 {
	m := written(h)
	buckets := m.GetHistogram().GetBucket()
	out := make([]int64, 0, len(buckets)+1)
	var before uint64
	for _, b := range buckets {
		out = append(out, int64(b.GetCumulativeCount()-before))
		before = b.GetCumulativeCount()
	}
	return append(out, int64(m.GetHistogram().GetSampleCount()-before))
}

func written(m prometheus.Metric) *dto.Metric {
	out := new(dto.Metric)
	if err := m.Write(out); err != nil {
		panic(err) // a histogram without exemplars can't fail
	}
	return out
}

// Counters are the exact counters of an agent's versions. Errors: *Refusal for an unknown agent.
func (r *Router) Counters(agent string) (api.Counters, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.agents[agent] == nil {
		return api.Counters{}, r.unknownAgent(agent)
	}
	out := api.Counters{Instance: r.instance, UptimeMillis: (r.clock.Mono() - r.born).Milliseconds(), Agent: agent, Bounds: bounds(), Versions: map[string]api.Counter{}, Shares: map[string]api.Fraction{}}
	var requests, conversations int64
	for k, s := range r.stats {
		if k.agent == agent {
			c := s.Counter()
			out.Versions[k.version] = c
			requests += c.Requests
			conversations += c.Conversations
		}
	}
	for v, c := range out.Versions {
		out.Shares[v] = api.Fraction{
			Requests:      float64(c.Requests) / float64(max(1, requests)),
			Conversations: float64(c.Conversations) / float64(max(1, conversations)),
		}
	}
	return out, nil
}

// codeLabel is how a code is named in metrics.
func codeLabel(code int) string {
	if code == codeOther {
		return Other
	}
	return strconv.Itoa(code)
}
