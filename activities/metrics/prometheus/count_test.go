package prometheus

import (
	"fmt"
	"maps"
	"testing"

	"github.com/prometheus/common/model"
	"pgregory.net/rapid"
)

const testMatchers = `__name__=~"hits_total",agent="a",version=~"v1|v2"`

const t0 = int64(1_800_000_000_000)

func TestCountsExactly(t *testing.T) {
	t.Parallel()
	const s = int64(1000)
	for name, test := range map[string]func(*store, *process, *poller){
		"what was before the position does not count": func(_ *store, g *process, p *poller) {
			g.hits["v1"] = 100
			g.scrape(t0)
			p.poll(t0+1*s, false)
			g.hits["v1"] = 130
			g.scrape(t0 + 10*s)
			p.poll(t0+11*s, false)
			p.poll(t0+12*s, false) // nothing new
			p.want("v1", 30)
		},
		"a series that begins counts from zero": func(_ *store, g *process, p *poller) {
			g.scrape(t0)
			p.poll(t0+1*s, false)
			g.hits["v2"] = 7
			g.scrape(t0 + 10*s)
			p.poll(t0+11*s, false)
			p.want("v2", 7)
		},
		"a lost answer loses nothing, a repeated poll doubles nothing": func(_ *store, g *process, p *poller) {
			g.scrape(t0)
			p.poll(t0, false)
			for i := int64(1); i <= 5; i++ {
				g.hits["v1"] += 10
				g.scrape(t0 + i*10*s)
				p.poll(t0+i*10*s+s, i%2 == 0)
			}
			p.want("v1", 50)
		},
		"a crash is caught up": func(_ *store, g *process, p *poller) {
			g.hits["v1"] = 5
			g.scrape(t0)
			p.poll(t0, false)
			for i := int64(1); i <= 240; i++ { // four hours, two restarts in them
				if i == 100 || i == 200 {
					g.restart(t0 + i*60*s - 30*s)
				}
				g.hits["v1"] += 3
				g.scrape(t0 + i*60*s)
			}
			for range 5 { // an hour each
				p.poll(t0+241*60*s, false)
			}
			p.want("v1", 720)
		},
		"a restart counts from zero": func(_ *store, g *process, p *poller) {
			g.hits["v1"] = 50
			g.scrape(t0)
			p.poll(t0, false)
			g.restart(t0 + 5*s)
			g.hits["v1"] = 20
			g.scrape(t0 + 10*s)
			p.poll(t0+11*s, false)
			p.want("v1", 20)
		},
		"a restart is seen though the counter has overtaken": func(_ *store, g *process, p *poller) {
			g.hits["v1"] = 10
			g.scrape(t0)
			p.poll(t0, false)
			g.restart(t0 + 5*s)
			g.hits["v1"] = 25
			g.scrape(t0 + 10*s)
			p.poll(t0+11*s, false)
			p.want("v1", 25)
		},
		"a series that comes back in a new process counts from zero": func(_ *store, g *process, p *poller) {
			g.hits["v1"], g.hits["v2"] = 10, 4
			g.scrape(t0)
			p.poll(t0, false)
			g.restart(t0 + 5*s)
			for i := int64(1); i <= 90; i++ { // v2 is gone for a quarter of an hour
				g.hits["v1"]++
				g.scrape(t0 + i*10*s)
				p.poll(t0+i*10*s+s, false)
			}
			g.hits["v2"] = 6
			g.scrape(t0 + 910*s)
			p.poll(t0+911*s, false)
			p.want("v1", 90)
			p.want("v2", 6)
		},
		"a gap is not counted whole again": func(_ *store, g *process, p *poller) {
			g.hits["v1"] = 1000
			g.scrape(t0)
			p.poll(t0, false)
			for i := int64(1); i <= 720; i++ { // two hours without a scrape
				p.poll(t0+i*10*s, false)
			}
			g.hits["v1"] = 1010
			g.scrape(t0 + 7210*s)
			p.poll(t0+7211*s, false)
			p.want("v1", 10)
		},
		"a gap at the position is not counted whole either": func(_ *store, g *process, p *poller) {
			g.hits["v1"] = 1000
			g.scrape(t0 - 1200*s)
			p.poll(t0, false) // sees no series
			g.hits["v1"] = 1010
			g.scrape(t0 + 10*s)
			p.poll(t0+11*s, false)
			p.want("v1", 10)
		},
		"an old process that was never scraped counts from its first scrape": func(_ *store, g *process, p *poller) {
			p.poll(t0, false)
			g.hits["v1"] = 5000 // within the quarter of an hour since its start
			g.scrape(t0 + 10*s)
			g.hits["v1"] = 5003
			g.scrape(t0 + 20*s)
			p.poll(t0+21*s, false)
			p.want("v1", 3)
		},
		"a young one counts from zero": func(_ *store, g *process, p *poller) {
			p.poll(t0, false)
			g.restart(t0 - 10*s)
			g.hits["v1"] = 5000
			g.scrape(t0 + 10*s)
			p.poll(t0+21*s, false)
			p.want("v1", 5000)
		},
		"a sample that comes late counts once": func(st *store, g *process, p *poller) {
			g.hits["v1"], g.hits["v2"] = 1, 1
			g.scrape(t0)
			p.poll(t0, false)
			g.hits["v1"], g.hits["v2"] = 5, 5
			g.scrape(t0+10*s, "v2")
			p.poll(t0+11*s, false)
			p.want("v2", 0)
			st.arrive()
			p.poll(t0+12*s, false)
			p.want("v1", 4)
			p.want("v2", 4)
		},
		"a whole scrape that comes after the poll counts once": func(st *store, g *process, p *poller) {
			g.hits["v1"] = 1
			g.scrape(t0)
			p.poll(t0, false)
			g.hits["v1"] = 5
			g.scrape(t0+10*s, "v1")
			p.poll(t0+20*s, false)
			st.arrive()
			p.poll(t0+30*s, false)
			p.want("v1", 4)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newStore(t)
			test(st, newProcess(st, "g1:9901", t0-1000*s, true), newPoller(t, st))
		})
	}
}

func TestWithoutStartTimes(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	g, p := newProcess(st, "g1:9901", t0, false), newPoller(t, st)
	g.hits["v1"] = 50
	g.scrape(t0)
	p.poll(t0, false)
	g.restart(t0 + 5000)
	g.hits["v1"] = 20
	g.scrape(t0 + 10_000)
	p.poll(t0+11_000, false)
	p.want("v1", 20)
}

func TestTooMuchAtOnce(t *testing.T) {
	t.Parallel()
	st := newStore(t)
	g, p := newProcess(st, "g1:9901", t0, true), newPoller(t, st)
	g.scrape(t0)
	p.poll(t0, false)
	for i := int64(1); i <= 1000; i++ {
		g.hits["v1"]++
		g.scrape(t0 + i*1000)
	}
	st.limit = 100
	for range 30 {
		p.poll(t0+1_001_000, false)
	}
	p.want("v1", 1000)
	st.limit = 1
	g.hits["v2"]++
	g.scrape(t0 + 1_002_000)
	c, err := decodeCursor(p.cursor)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.source.count(t.Context(), testMatchers, c, t0+1_003_000); err == nil {
		t.Error("no error for an answer that never fits")
	}
}

// TestAnyHistory: whatever happens to processes, scrapes and polls, every request that was ever scraped counts once.
func TestAnyHistory(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		st := newStore(t)
		p := newPoller(t, st)
		now := t0
		var all []*process
		for i := range rapid.IntRange(1, 3).Draw(r, "processes") {
			all = append(all, newProcess(st, fmt.Sprintf("g%d", i), t0-int64(i+1)*10_000, true))
		}
		want := map[string]float64{}
		scrape := func(g *process, late ...string) {
			now++       // targets are never scraped at the same millisecond
			st.arrive() // Prometheus takes no sample of a series that is older than its last
			for v, n := range g.hits {
				want[v] += n - g.scraped[v]
			}
			g.scrape(now, late...)
		}
		for _, g := range all {
			g.hits["v1"] = 100
			scrape(g)
		}
		p.poll(now+1, false)
		clear(want)
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			g := rapid.SampledFrom(all).Draw(r, "process")
			version := rapid.SampledFrom([]string{"v1", "v2"}).Draw(r, "version")
			switch rapid.IntRange(0, 7).Draw(r, "what") {
			case 0, 1:
				g.hits[version] += float64(rapid.IntRange(1, 200).Draw(r, "hits"))
			case 2:
				scrape(g)
			case 3:
				// A first sample comes with its scrape, and so does one after a long gap: what can come late is what goes on.
				if _, before := g.scraped[version]; before && now-g.lastScrape < patience.Milliseconds() {
					scrape(g, version)
				}
			case 4:
				now += 5000
				g.restart(now) // what was not scraped is lost to everybody
			case 5:
				st.arrive() // nothing is on its way for minutes
				now += int64(rapid.IntRange(1, 7_200_000).Draw(r, "pause"))
				p.poll(now, false)
			case 6:
				p.poll(now, rapid.Bool().Draw(r, "lost"))
			case 7:
				now += int64(rapid.IntRange(1, 5_000).Draw(r, "wait"))
			}
		}
		st.arrive()
		for end := now + 1; p.at() < end; {
			p.poll(end, false)
		}
		for _, v := range []string{"v1", "v2"} {
			if p.total[v] != want[v] {
				r.Errorf("%s: counted %v, want %v", v, p.total[v], want[v])
			}
		}
	})
}

func TestCursorStaysSmall(t *testing.T) {
	t.Parallel()
	c := &cursor{at: t0, targets: map[hash]int64{}, late: map[hash]int64{}}
	for i := range 1000 {
		m := model.Metric{"__name__": "x", "instance": model.LabelValue(fmt.Sprint(i))}
		c.targets[targetOf(m)] = t0 - int64(i)
		c.late[seriesOf(m)] = t0 - int64(i)
	}
	c.trim()
	raw, err := c.encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.targets) != maxTargets || len(c.late) != maxLate || len(raw) > 16<<10 {
		t.Errorf("%d targets, %d late, %d bytes", len(c.targets), len(c.late), len(raw))
	}
	back, err := decodeCursor(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(back.targets, c.targets) || !maps.Equal(back.late, c.late) || back.at != c.at {
		t.Error("the cursor came back changed")
	}
	for _, bad := range []string{`{`, `{"v":2}`, `{"v":1,"t":{"!":1}}`, `{"v":1,"l":{"x":"AAAAAAAA"}}`, `{"v":1,"l":{"1":"A"}}`, `17`} {
		if _, err := decodeCursor([]byte(bad)); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}
