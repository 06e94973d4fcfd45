package main

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

// turns is how many requests one conversation has.
const turns = 20

// result is what one workload on one proxy gave. Latencies in seconds.
type result struct {
	requests int
	failed   int
	took     time.Duration
	p50, p99 float64
}

func (r result) rps() float64 { return float64(r.requests) / r.took.Seconds() }

var conversations atomic.Int64

// client is one connection's worth of users, one conversation after another. As a user of Aviary does, it sends the pin of the
// first answer with the later turns; other proxies give none.
type client struct {
	http *fasthttp.HostClient
	req  fasthttp.Request
	resp fasthttp.Response
	turn int
}

func newClient(h *fasthttp.HostClient) *client {
	c := &client{http: h}
	c.req.Header.SetMethod(fasthttp.MethodPost)
	c.req.SetRequestURI("http://" + h.Addr + prefix + "chat")
	c.req.Header.SetContentType("application/json")
	c.req.SetBodyRaw(document("question", questionSize))
	return c
}

func hostClient(addr string, n int) *fasthttp.HostClient {
	return &fasthttp.HostClient{Addr: addr, MaxConns: n, ReadTimeout: 10 * time.Second}
}

// ask sends the next turn and reports whether the whole answer came.
func (c *client) ask() bool {
	if c.turn%turns == 0 {
		c.req.Header.Set("X-Conversation-ID", "bench-"+strconv.FormatInt(conversations.Add(1), 10))
		c.req.Header.Del("X-Aviary-Pin")
	}
	c.turn++
	if err := c.http.Do(&c.req, &c.resp); err != nil {
		return false
	}
	if pin := c.resp.Header.Peek("X-Aviary-Pin"); len(pin) > 0 {
		c.req.Header.SetBytesV("X-Aviary-Pin", pin)
	}
	return c.resp.StatusCode() == fasthttp.StatusOK && len(c.resp.Body()) == answerSize
}

// tally collects the latencies of many workers.
type tally struct {
	mu     sync.Mutex
	all    []float64
	failed int
}

func (t *tally) add(latencies []float64, failed int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all, t.failed = append(t.all, latencies...), t.failed+failed
}

func (t *tally) result(took time.Duration) result {
	slices.Sort(t.all)
	return result{requests: len(t.all), failed: t.failed, took: took, p50: quantile(t.all, 0.5), p99: quantile(t.all, 0.99)}
}

// closedLoop has n clients that each send the next request when the answer to the last has come.
func closedLoop(addr string, n int, d time.Duration) result {
	h := hostClient(addr, n)
	defer h.CloseIdleConnections()
	var all tally
	var wg sync.WaitGroup
	start := time.Now()
	for range n {
		wg.Go(func() {
			c := newClient(h)
			var latencies []float64
			failed := 0
			for last := time.Now(); last.Sub(start) < d; {
				ok := c.ask()
				now := time.Now()
				if ok {
					latencies = append(latencies, now.Sub(last).Seconds())
				} else {
					failed++
				}
				last = now
			}
			all.add(latencies, failed)
		})
	}
	wg.Wait()
	return all.result(time.Since(start))
}

// openLoop sends rate requests a second on up to n connections, whether or not the answers keep up. A latency counts from the
// moment the request was due, so a proxy that stalls pays for the requests that had to wait.
func openLoop(addr string, rate, n int, d time.Duration) result {
	h := hostClient(addr, n)
	defer h.CloseIdleConnections()
	total := int(d.Seconds() * float64(rate))
	due := make(chan time.Time, total)
	var all tally
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			c := newClient(h)
			var latencies []float64
			failed := 0
			for t := range due {
				if c.ask() {
					latencies = append(latencies, time.Since(t).Seconds())
				} else {
					failed++
				}
			}
			all.add(latencies, failed)
		})
	}
	start := time.Now()
	pace(due, start, total, time.Second/time.Duration(rate))
	wg.Wait()
	return all.result(time.Since(start))
}

// pace puts total moments into due, each when it has come. Go's own timers wake an idle process up to 1 ms late, which would
// make bursts, so this sleeps in the kernel.
func pace(due chan<- time.Time, start time.Time, total int, every time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(due)
	for i := range total {
		t := start.Add(time.Duration(i) * every)
		for wait := time.Until(t); wait > 0; wait = time.Until(t) {
			ts := syscall.NsecToTimespec(int64(wait))
			_ = syscall.Nanosleep(&ts, nil) // woken early by a signal: it sleeps again
		}
		due <- t
	}
}

// flushes measures how long an event takes from the agent's write to the client, on n streams at once.
func flushes(addr string, n int, d time.Duration) (result, error) {
	transport := &http.Transport{DisableCompression: true, MaxConnsPerHost: n}
	defer transport.CloseIdleConnections()
	var all tally
	var wg sync.WaitGroup
	errs := make(chan error, n)
	start := time.Now()
	for range n {
		wg.Go(func() {
			latencies, err := stream(transport, addr, int(d/eventEvery))
			all.add(latencies, 0)
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	var joined error
	for err := range errs {
		joined = errors.Join(joined, err)
	}
	return all.result(time.Since(start)), joined
}

func stream(transport *http.Transport, addr string, events int) ([]float64, error) {
	c := http.Client{Transport: transport}
	resp, err := c.Get(fmt.Sprintf("http://%s%sevents?n=%d", addr, prefix, events))
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	defer resp.Body.Close()
	var latencies []float64
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		written, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return latencies, fmt.Errorf("event %q: %w", text, err)
		}
		latencies = append(latencies, float64(time.Now().UnixNano()-written)/1e9)
	}
	if lines.Err() == nil && len(latencies) != events {
		return latencies, fmt.Errorf("%d events came, want %d", len(latencies), events)
	}
	return latencies, lines.Err()
}

// settle is how long all streams are open before their memory is measured, so that it is the memory of idle streams and not
// that of opening them.
const settle = time.Second

// hold opens n streams, waits for the first event of each, and calls then once all of them have been idle for settle.
func hold(addr string, n int, then func()) error {
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	req := fmt.Sprintf("GET %sidle HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n\r\n", prefix, addr)
	for i := range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return fmt.Errorf("open stream %d: %w", i+1, err)
		}
		conns = append(conns, c)
		if _, err := c.Write([]byte(req)); err != nil {
			return fmt.Errorf("ask for stream %d: %w", i+1, err)
		}
	}
	buf := make([]byte, 4<<10)
	for i, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
		got := ""
		for !strings.Contains(got, "data: hello") {
			k, err := c.Read(buf)
			if err != nil {
				return fmt.Errorf("first event of stream %d: %w", i+1, err)
			}
			got += string(buf[:k])
		}
	}
	time.Sleep(settle)
	then()
	return nil
}

// quantile of sorted values by the nearest rank, q in (0,1]; 0 when there are none.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(math.Ceil(q * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}
