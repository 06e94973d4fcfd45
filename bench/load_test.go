package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	t.Parallel()
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for _, c := range []struct {
		name   string
		sorted []float64
		q      float64
		want   float64
	}{
		{"none", nil, 0.99, 0},
		{"one", []float64{7}, 0.99, 7},
		{"median of odd", []float64{1, 2, 3}, 0.5, 2},
		{"median of even", []float64{1, 2}, 0.5, 1},
		{"p99 of a hundred", hundred, 0.99, 99},
		{"p100", hundred, 1, 100},
		{"p1", hundred, 0.01, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := quantile(c.sorted, c.q); got != c.want {
				t.Errorf("got %g, want %g", got, c.want)
			}
		})
	}
}

// answer is what a proxy passes on, for stand-ins of one.
func answer(w http.ResponseWriter) { _, _ = w.Write(document("answer", answerSize)) }

func addrOf(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// One stall must show in the many requests that were due meanwhile, not in the few that were under way.
func TestOpenLoopCountsFromThePlannedTime(t *testing.T) {
	t.Parallel()
	const stall = 2 * time.Second
	first := sync.OnceValue(time.Now)
	addr := addrOf(t, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(stall - time.Since(first())) // the server stalls at first: what the test is about
		answer(w)
	})
	got := openLoop(addr, 500, 2, time.Second) // 500 requests on 2 connections, all due within a second
	if got.requests != 500 || got.failed != 0 {
		t.Fatalf("%d answered, %d failed, want 500 and 0", got.requests, got.failed)
	}
	if got.p50 < 1 {
		t.Errorf("p50 %g s: want at least 1 s, as all requests were due 1 s before the stall's end", got.p50)
	}
}

func TestClosedLoopTellsFailures(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	addr := addrOf(t, func(w http.ResponseWriter, _ *http.Request) {
		switch n.Add(1) % 3 {
		case 0:
			w.WriteHeader(http.StatusBadGateway)
		case 1:
			_, _ = w.Write([]byte("{}"))
		default:
			answer(w)
		}
	})
	got := closedLoop(addr, 1, 300*time.Millisecond)
	if total := got.requests + got.failed; int64(total) != n.Load() || got.requests != (total+1)/3 {
		t.Errorf("%d answered and %d failed of %d", got.requests, got.failed, n.Load())
	}
}

// A conversation keeps its key for its turns and sends the pin of its first answer; the next one starts without.
func TestClientHoldsConversations(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var keys, pins []string
	addr := addrOf(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		keys, pins = append(keys, r.Header.Get("X-Conversation-ID")), append(pins, r.Header.Get("X-Aviary-Pin"))
		w.Header().Set("X-Aviary-Pin", "pin of "+keys[len(keys)-1])
		answer(w)
	})
	c := newClient(hostClient(addr, 1))
	for range 2 * turns {
		if !c.ask() {
			t.Fatal("a turn failed")
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if first := slices.Index(keys, keys[turns]); first != turns || keys[0] != keys[turns-1] || keys[turns] != keys[2*turns-1] {
		t.Errorf("keys %q", keys)
	}
	for i, pin := range pins {
		want := "pin of " + keys[i]
		if i%turns == 0 {
			want = ""
		}
		if pin != want {
			t.Errorf("turn %d sent the pin %q, want %q", i, pin, want)
		}
	}
}

// The agent against itself, as the contestant "direct": flush times and idle streams.
func TestStreamsOfTheAgent(t *testing.T) {
	t.Parallel()
	a, err := startAgent()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.free)
	got, err := flushes(a.addr, 2, 10*eventEvery)
	if err != nil || got.requests != 20 || got.p50 <= 0 || got.p50 > got.p99 {
		t.Errorf("%+v, %v: want 20 events", got, err)
	}
	held := 0
	if err := hold(a.addr, 50, func() { held++ }); err != nil || held != 1 {
		t.Errorf("held %d times: %v", held, err)
	}
	if n := a.asked.Load(); n != 52 {
		t.Errorf("the agent was asked %d times, want 52", n)
	}
}

// A proxy that cuts streams off, or that is not there, is an error and no good latency.
func TestFlushesTellCutStreams(t *testing.T) {
	t.Parallel()
	addr := addrOf(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("data: 1\n\n")) })
	if _, err := flushes(addr, 1, 5*eventEvery); err == nil {
		t.Error("1 event of 5 is no error")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := flushes(l.Addr().String(), 1, 5*eventEvery); err == nil {
		t.Error("no server is no error")
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	line := "42 (a b) c) S 7 42 42 0 -1 4194560 1 2 3 4 250 50 9 9 20 0 3 0 100 1000000 10 18446744073709551615"
	p, ok := parse([]byte(line))
	if !ok || p.parent != 7 || p.cpu != 3*time.Second || p.rss <= 0 {
		t.Errorf("%+v, %t", p, ok)
	}
	if _, ok := parse([]byte("42 (a) S 7")); ok {
		t.Error("a short line was taken")
	}
}

func TestBelow(t *testing.T) {
	t.Parallel()
	all := map[int]process{1: {}, 5: {parent: 1}, 6: {parent: 5}, 7: {parent: 6}, 8: {parent: 1}, 9: {parent: 404}}
	got := below(all, 5)
	for id, want := range map[int]bool{1: false, 5: true, 6: true, 7: true, 8: false, 9: false} {
		if _, in := got[id]; in != want {
			t.Errorf("process %d counted: %t, want %t", id, in, want)
		}
	}
}

// The work of a child process counts, as that of nginx' workers must.
func TestCPUCountsChildren(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", "-c", "(while :; do :; done) & wait")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for id := range tree(cmd.Process.Pid) {
			kill(id)
		}
		_ = cmd.Wait()
	})
	deadline := time.Now().Add(60 * time.Second)
	for cpu(cmd.Process.Pid) < 100*time.Millisecond {
		if time.Now().After(deadline) {
			t.Fatal("the child's work does not count")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if m := memory(cmd.Process.Pid); m < 64<<10 {
		t.Errorf("memory of %d bytes", m)
	}
}
