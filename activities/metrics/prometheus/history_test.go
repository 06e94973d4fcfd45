package prometheus

import (
	"maps"
	"testing"
	"time"

	"github.com/prometheus/common/model"
)

// process is a scraped process with counters, as its scrapes see it.
type process struct {
	store    *store
	instance string
	started  float64 // seconds
	told     bool    // exports its start time
	hits     map[string]float64
	scraped  map[string]float64 // values at the last scrape since the start

	lastScrape int64
}

func newProcess(s *store, instance string, started int64, told bool) *process {
	return &process{store: s, instance: instance, started: float64(started) / 1000, told: told, hits: map[string]float64{}, scraped: map[string]float64{}}
}

func (p *process) labels(name, version string) model.Metric {
	m := model.Metric{"__name__": model.LabelValue(name), "job": "gateway", "instance": model.LabelValue(p.instance)}
	if version != "" {
		m["agent"], m["version"] = "a", model.LabelValue(version)
	}
	return m
}

// scrape samples all counters at ts. Those in late are on their way until the store's arrive.
func (p *process) scrape(ts int64, late ...string) {
	for version, v := range p.hits {
		visible := true
		for _, l := range late {
			visible = visible && l != version
		}
		p.store.add(p.labels("hits_total", version), ts, v, visible)
	}
	if p.told {
		p.store.add(p.labels(startTime, ""), ts, p.started, true)
	}
	p.scraped, p.lastScrape = maps.Clone(p.hits), ts
}

func (p *process) restart(ts int64) {
	p.started = float64(ts) / 1000
	p.hits, p.scraped = map[string]float64{}, map[string]float64{}
}

// poller polls with a real cursor that travels as JSON.
type poller struct {
	t      testing.TB
	source *source
	cursor []byte
	total  map[string]float64
}

func newPoller(t testing.TB, s *store) *poller {
	source, err := newSource(Settings{URL: s.url, Timeout: 5 * time.Second, MaxBody: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return &poller{t: t, source: source, total: map[string]float64{}}
}

// poll takes the increases up to now, or a position at first. A lost one is taken again by the next.
func (p *poller) poll(now int64, lost bool) {
	before, err := decodeCursor(p.cursor)
	if err != nil {
		p.t.Fatal(err)
	}
	var after *cursor
	var series []counted
	if before == nil {
		after, err = p.source.position(p.t.Context(), testMatchers, now)
	} else {
		series, after, err = p.source.count(p.t.Context(), testMatchers, before, now)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	if lost {
		return
	}
	for _, s := range series {
		p.total[string(s.labels["version"])] += s.increase
	}
	if p.cursor, err = after.encode(); err != nil {
		p.t.Fatal(err)
	}
}

// at is how far the cursor has come.
func (p *poller) at() int64 {
	c, err := decodeCursor(p.cursor)
	if err != nil {
		p.t.Fatal(err)
	}
	return c.at
}

func (p *poller) want(version string, n float64) {
	p.t.Helper()
	if got := p.total[version]; got != n {
		p.t.Errorf("%s: counted %v, want %v", version, got, n)
	}
}
