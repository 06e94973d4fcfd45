package router

import (
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
)

// benchmarkDecide measures Decide by the machine's clock, on a router with options that change has turned, with the request that
// make makes.
func benchmarkDecide(b *testing.B, change func(*Options), request func(*Router) Request) {
	o := testOptions(b, nil)
	if change != nil {
		change(&o)
	}
	r, err := New(o)
	if err != nil {
		b.Fatal(err)
	}
	mustSet(b, r, canaryRoute(5000, 1))
	q := request(r)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Decide(agent, q); err != nil {
			b.Fatal(err)
		}
	}
}

// pinned is a request with a good pin.
func pinned(b *testing.B, r *Router) Request {
	d := mustDecide(b, r, Request{Key: "conversation-1"})
	return Request{Key: "conversation-1", Pin: string(r.AppendPin(nil, &d))}
}

func byKey(*Router) Request { return Request{Key: "conversation-1"} }

func BenchmarkDecideWeight(b *testing.B) { benchmarkDecide(b, nil, byKey) }

func BenchmarkDecidePin(b *testing.B) {
	benchmarkDecide(b, nil, func(r *Router) Request { return pinned(b, r) })
}

func BenchmarkDecideForgedPin(b *testing.B) {
	benchmarkDecide(b, nil, func(r *Router) Request {
		q := pinned(b, r)
		q.Pin = q.Pin[:len(q.Pin)-4] + "AAAA"
		return q
	})
}

func BenchmarkDecideOverride(b *testing.B) {
	benchmarkDecide(b, nil, func(*Router) Request { return Request{Override: "v40"} })
}

func BenchmarkDecideMemory(b *testing.B) {
	benchmarkDecide(b, func(o *Options) { o.StickyMemory = 1000 }, func(r *Router) Request {
		d := mustDecide(b, r, byKey(r))
		r.Served(&d, "conversation-1")
		return byKey(r)
	})
}

func BenchmarkDecideFlagd(b *testing.B) {
	benchmarkDecide(b, func(o *Options) {
		a := o.Agents[agent]
		a.Hash = HashFlagd
		o.Agents = map[string]AgentOptions{agent: a}
	}, byKey)
}

func BenchmarkDecideParallel(b *testing.B) {
	r, err := New(testOptions(b, nil))
	if err != nil {
		b.Fatal(err)
	}
	mustSet(b, r, canaryRoute(5000, 1))
	q := pinned(b, r)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := r.Decide(agent, q); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkPinVerify(b *testing.B) {
	r, err := New(testOptions(b, nil))
	if err != nil {
		b.Fatal(err)
	}
	mustSet(b, r, canaryRoute(5000, 1))
	token, versions, now := pinned(b, r).Pin, r.table.Load().agents[agent].versions, time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.keys.open(kindPin, agent, token, versions, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendPin(b *testing.B) {
	r, err := New(testOptions(b, nil))
	if err != nil {
		b.Fatal(err)
	}
	d := mustDecide(b, r, Request{Key: "conversation-1"})
	buf := make([]byte, 0, maxTokenLen)
	b.ReportAllocs()
	for b.Loop() {
		buf = r.AppendPin(buf[:0], &d)
	}
}

func BenchmarkSetRoute(b *testing.B) {
	r, _ := newTestRouter(b)
	route := canaryRoute(5000, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.SetRoute(agent, route); err != nil {
			b.Fatal(err)
		}
	}
	if seen, err := r.Observed(agent); err != nil || seen.OnRollback != api.Evict {
		b.Fatal(seen, err)
	}
}
