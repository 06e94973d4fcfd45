package app

import (
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/sdk/client"
)

// sdkLabels are the tags that the Temporal SDK puts on its metrics. Its label sets differ by call, and Prometheus wants one set
// per metric, so every metric gets the union, with missing ones empty. Other tags are dropped.
func sdkLabels() []string {
	return []string{
		"namespace", "client_name", "worker_type", "poller_type", "task_queue", "workflow_type", "activity_type",
		"operation", "cause", "status_code", "failure_reason", "nexus_service", "nexus_operation",
	}
}

// sdkTimerBuckets are in seconds: from a task that was polled at once to an activity that watches for an hour.
func sdkTimerBuckets() []float64 { return []float64{.005, .02, .1, .5, 1, 5, 10, 60, 600, 3600} }

// sdkMetrics gives the Temporal SDK's metrics to a Prometheus registry.
type sdkMetrics struct {
	tags  map[string]string
	store *sdkStore
}

type sdkStore struct {
	registry prometheus.Registerer
	mu       sync.Mutex
	vectors  map[string]prometheus.Collector
}

func newSDKMetrics(registry prometheus.Registerer) client.MetricsHandler {
	return &sdkMetrics{store: &sdkStore{registry: registry, vectors: map[string]prometheus.Collector{}}}
}

// WithTags returns a handler whose metrics carry tags too.
func (h *sdkMetrics) WithTags(tags map[string]string) client.MetricsHandler {
	all := maps.Clone(h.tags)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, tags)
	return &sdkMetrics{tags: all, store: h.store}
}

// Counter returns a counter named temporal_NAME_total.
func (h *sdkMetrics) Counter(name string) client.MetricsCounter {
	v := vector(h.store, name, func() *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "_total", Help: "Temporal SDK counter."}, sdkLabels())
	})
	return counter{v.WithLabelValues(h.values()...)}
}

// Gauge returns a gauge.
func (h *sdkMetrics) Gauge(name string) client.MetricsGauge {
	v := vector(h.store, name, func() *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: "Temporal SDK gauge."}, sdkLabels())
	})
	return gauge{v.WithLabelValues(h.values()...)}
}

// Timer returns a histogram in seconds.
func (h *sdkMetrics) Timer(name string) client.MetricsTimer {
	v := vector(h.store, name, func() *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name + "_seconds", Help: "Temporal SDK timer.", Buckets: sdkTimerBuckets(),
		}, sdkLabels())
	})
	return timer{v.WithLabelValues(h.values()...)}
}

func (h *sdkMetrics) values() []string {
	labels := sdkLabels()
	out := make([]string, len(labels))
	for i, l := range labels {
		out[i] = h.tags[l]
	}
	return out
}

// vector returns the registered collector of that name, made on first use. A name that is used as two kinds, or is taken, gets
// a collector that nobody scrapes.
func vector[V prometheus.Collector](s *sdkStore, name string, make func() V) V {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.vectors[name].(V); ok {
		return v
	}
	v := make()
	if err := s.registry.Register(v); err != nil {
		var taken prometheus.AlreadyRegisteredError
		if errors.As(err, &taken) {
			if old, ok := taken.ExistingCollector.(V); ok {
				v = old
			}
		}
	}
	if s.vectors[name] == nil {
		s.vectors[name] = v
	}
	return v
}

type counter struct{ prometheus.Counter }

func (c counter) Inc(n int64) { c.Add(float64(n)) }

type gauge struct{ prometheus.Gauge }

func (g gauge) Update(v float64) { g.Set(v) }

type timer struct{ prometheus.Observer }

func (t timer) Record(d time.Duration) { t.Observe(d.Seconds()) }
