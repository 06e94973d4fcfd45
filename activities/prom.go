package activities

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aviary-rollouts/aviary/rollout"
)

// meter is Aviary's own metrics. What is told per agent is told by the worker that watches it, and only while it does: series of
// finished rollouts, and of those that moved to another worker, are gone.
type meter struct {
	clock    Clock
	verdicts *prometheus.CounterVec // verdict
	decided  *prometheus.CounterVec // decision
	restores prometheus.Histogram
	sources  *prometheus.CounterVec // provider, target
	drivers  *prometheus.CounterVec // driver, target
	ignored  *prometheus.CounterVec // provider, target

	mu     sync.Mutex
	agents map[string]*gauges
}

// gauges are what this worker knows of an agent right now.
type gauges struct {
	phases map[rollout.Phase]int // activities at work
	weight rollout.Weight
	polled time.Time // zero: not watched here
}

var (
	weightDesc = prometheus.NewDesc("aviary_canary_weight", "Share of traffic that the canary is to have, 0 to 1.", []string{"agent"}, nil)
	phaseDesc  = prometheus.NewDesc("aviary_phase", "1 for the phase of the rollout that this worker is at work for.", []string{"agent", "phase"}, nil)
	ageDesc    = prometheus.NewDesc("aviary_poll_age_seconds", "Time since the metrics source last answered for this agent.", []string{"agent"}, nil)
)

func newMeter(registerer prometheus.Registerer, clock Clock) (*meter, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &meter{
		clock:    clock,
		verdicts: counter("aviary_verdicts_total", "Polls by what the evidence said after them.", "verdict"),
		decided:  counter("aviary_decisions_total", "Decisions that the humans were told of.", "decision"),
		sources:  counter("aviary_provider_errors_total", "Polls that the metrics source did not answer.", "provider", "target"),
		drivers:  counter("aviary_driver_errors_total", "Calls that the data plane refused or did not answer.", "driver", "target"),
		ignored:  counter("aviary_samples_uncounted_total", "Samples of the metrics source that made no sense, such as falling counts, and were left out.", "provider", "target"),
		restores: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "aviary_restore_duration_seconds", Help: "Time from the decision to restore until weight 0 was read back.",
			Buckets: []float64{0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300, 1800},
		}),
		agents: map[string]*gauges{},
	}
	for _, v := range []rollout.Verdict{rollout.Met, rollout.Violated, rollout.Undecided, rollout.NoData} {
		m.verdicts.WithLabelValues(string(v))
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.verdicts, m.decided, m.sources, m.drivers, m.ignored, m.restores, m} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Describe implements prometheus.Collector.
func (m *meter) Describe(out chan<- *prometheus.Desc) {
	out <- weightDesc
	out <- phaseDesc
	out <- ageDesc
}

// Collect implements prometheus.Collector.
func (m *meter) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.clock.Now()
	for agent, w := range m.agents {
		for phase := range w.phases {
			out <- prometheus.MustNewConstMetric(phaseDesc, prometheus.GaugeValue, 1, agent, string(phase))
		}
		if !w.polled.IsZero() {
			out <- prometheus.MustNewConstMetric(weightDesc, prometheus.GaugeValue, w.weight.Fraction(), agent)
			out <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, max(0, now.Sub(w.polled).Seconds()), agent)
		}
	}
}

// enter notes that this worker is at work for an agent in a phase, until the function it returns is called.
func (m *meter) enter(agent string, phase rollout.Phase) (leave func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.agents[agent] == nil {
		m.agents[agent] = &gauges{phases: map[rollout.Phase]int{}}
	}
	m.agents[agent].phases[phase]++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		w := m.agents[agent]
		if w.phases[phase]--; w.phases[phase] == 0 {
			delete(w.phases, phase)
		}
		if w.phases[rollout.Observing] == 0 {
			w.polled = time.Time{}
		}
		if len(w.phases) == 0 {
			delete(m.agents, agent)
		}
	}
}

// polled notes that an agent's canary has a weight and that its source answered at a moment. Only between enter and leave.
func (m *meter) polled(agent string, weight rollout.Weight, at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.agents[agent]; w != nil {
		w.weight, w.polled = weight, at
	}
}

func (m *meter) verdict(v rollout.Verdict)          { m.verdicts.WithLabelValues(string(v)).Inc() }
func (m *meter) decision(kind rollout.DecisionKind) { m.decided.WithLabelValues(string(kind)).Inc() }
func (m *meter) restored(d time.Duration)           { m.restores.Observe(max(0, d.Seconds())) }
func (m *meter) source(kind, target string, err error) {
	if err != nil {
		m.sources.WithLabelValues(kind, target).Inc()
	}
}

// uncounted notes samples that could not be counted.
func (m *meter) uncounted(from rollout.Metrics, samples int64) {
	m.ignored.WithLabelValues(from.Provider, from.Target).Add(float64(samples))
}

func (m *meter) driver(kind, target string, err error) {
	if err != nil {
		m.drivers.WithLabelValues(kind, target).Inc()
	}
}
