package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// short is a limit on clients that a slow machine does not pass by itself.
const short = time.Second

// overH2C serves the world's proxy over unencrypted HTTP/2 too, and lets its client speak nothing else.
func (w *world) overH2C() {
	w.t.Helper()
	s := httptest.NewUnstartedServer(w.proxy)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t := &http.Transport{Protocols: new(http.Protocols)}
	t.Protocols.SetUnencryptedHTTP2(true)
	w.t.Cleanup(func() {
		t.CloseIdleConnections()
		s.CloseClientConnections()
		s.Close()
	})
	w.front, w.client = s, &http.Client{Transport: t}
}

// overBoth runs test over HTTP/1.1 and over HTTP/2.
func overBoth(t *testing.T, stable http.HandlerFunc, test func(t *testing.T, w *world, log *lines)) {
	t.Helper()
	for _, proto := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(proto, func(t *testing.T) {
			t.Parallel()
			var log lines
			w := newWorld(t, stable, say(""), logTo(&log, 1), func(o *Options) { o.ClientRead, o.ClientWrite = short, short })
			if proto == "HTTP/2" {
				w.overH2C()
			}
			test(t, w, &log)
		})
	}
}

func TestClientThatSendsNothing(t *testing.T) {
	t.Parallel()
	overBoth(t, func(_ http.ResponseWriter, req *http.Request) { io.Copy(io.Discard, req.Body) }, func(t *testing.T, w *world, log *lines) {
		body, in := io.Pipe()
		t.Cleanup(func() { in.Close() })
		go io.WriteString(in, "and then")
		req, err := http.NewRequestWithContext(limited(t), http.MethodPost, w.url("/"), body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Request-ID", "slow")
		resp, err := w.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestTimeout || !strings.Contains(string(text), "request_timeout") {
			t.Errorf("answer %d %s", resp.StatusCode, text)
		}
		if c := w.counter("v41"); c.Requests != 1 || c.Errors != 0 {
			t.Errorf("counted %d requests, %d errors: want 1, 0", c.Requests, c.Errors)
		}
		if line := log.wait(t, "slow"); line["status"] != 408.0 || line["bytes_in"] != 8.0 {
			t.Errorf("line %v", line)
		}
	})
}

func TestClientThatTakesNothing(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{}, 2)
	overBoth(t, func(rw http.ResponseWriter, req *http.Request) {
		for block := make([]byte, 64<<10); ; {
			if _, err := rw.Write(block); err != nil {
				gone <- struct{}{}
				return
			}
		}
	}, func(t *testing.T, w *world, log *lines) {
		w.open(limited(t), "X-Request-ID", "deaf") // and never reads
		select {
		case <-gone:
		case <-time.After(15 * time.Second):
			t.Fatal("the agent still writes")
		}
		if line := log.wait(t, "deaf"); line["error"] != "the client took nothing of the response for too long" || line["bytes_out"] == 0.0 {
			t.Errorf("line %v", line)
		}
		if c := w.counter("v41"); c.Requests != 1 || c.Errors != 0 {
			t.Errorf("counted %d requests, %d errors: want 1, 0", c.Requests, c.Errors)
		}
	})
}

// TestSlowAgentsAreLeftAlone: the limits on clients do not run while it is the agent that is slow, before, in and at the end of
// its response, nor on the connection's next request.
func TestSlowAgentsAreLeftAlone(t *testing.T) {
	t.Parallel()
	pause := func(req *http.Request) {
		select {
		case <-time.After(3 * short / 2):
		case <-req.Context().Done():
		}
	}
	overBoth(t, func(rw http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		if req.URL.Path == "/" {
			pause(req)
		}
		rw.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(rw, "data: %s\n\n", body)
		rw.(http.Flusher).Flush()
		pause(req)
		io.WriteString(rw, "data: last\n\n")
		rw.(http.Flusher).Flush()
		if req.URL.Path == "/" {
			pause(req)
		}
	}, func(t *testing.T, w *world, _ *lines) {
		for _, path := range []string{"/", "/next"} {
			resp, body := w.do(http.MethodPost, path, strings.NewReader("question"))
			if resp.StatusCode != 200 || body != "data: question\n\ndata: last\n\n" {
				t.Fatalf("answer %d %q", resp.StatusCode, body)
			}
		}
	})
}

// TestSlowAgentReadsLate: nor do they run while the agent takes nothing of what the client would send.
func TestSlowAgentReadsLate(t *testing.T) {
	t.Parallel()
	const size = 16 << 20 // more than the buffers on the way hold
	overBoth(t, func(rw http.ResponseWriter, req *http.Request) {
		time.Sleep(2 * short) // the slowness that is tested
		n, err := io.Copy(io.Discard, req.Body)
		fmt.Fprintf(rw, "%d %v", n, err)
	}, func(t *testing.T, w *world, _ *lines) {
		resp, body := w.do(http.MethodPost, "/", io.LimitReader(zeroes{}, size))
		if want := fmt.Sprintf("%d <nil>", size); resp.StatusCode != 200 || body != want {
			t.Errorf("answer %d %q, want %q", resp.StatusCode, body, want)
		}
	})
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { return len(p), nil }

// TestRefusedClientSendsNothing: who is refused holds its connection no longer for announcing a body.
func TestRefusedClientSendsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, say(""), say(""), func(o *Options) { o.ClientRead = short })
	c := w.dial()
	fmt.Fprintf(c, "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nand then")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusNotFound {
		t.Fatalf("answer %v, %v", resp, err)
	}
	io.Copy(io.Discard, resp.Body)
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("after the answer: %v, want the connection closed", err)
	}
}

// setter takes deadlines of reading.
type setter func(time.Time)

func (s setter) SetReadDeadline(d time.Time) error { s(d); return nil }
func (setter) SetWriteDeadline(time.Time) error    { panic("not about writing") }

func TestPatience(t *testing.T) {
	t.Parallel()
	var set []time.Time
	p := patience{limit: time.Hour, control: setter(func(d time.Time) { set = append(set, d) })}
	begun := time.Now()
	for range 3 {
		p.begin()
		p.done(nil)
	}
	if len(set) != 3 || set[0].Before(begun.Add(time.Hour)) || !set[2].After(set[0]) {
		t.Errorf("deadlines %v: want a later one for every call", set)
	}
	p.rest()
	if !set[3].IsZero() {
		t.Errorf("at rest: %v, want none", set[3])
	}
	p.begin()
	p.done(fmt.Errorf("read: %w", os.ErrDeadlineExceeded))
	if !p.out.Load() {
		t.Error("a deadline that passed is not noted")
	}
	p.end(true)
	p.begin()
	p.rest()
	if len(set) != 5 {
		t.Errorf("%d deadlines: want none after one ran out, and none after the end", len(set))
	}

	fired := make(chan time.Time, 8)
	timed := patience{limit: time.Millisecond, timed: true, control: setter(func(d time.Time) { fired <- d })}
	timed.begin()
	select {
	case d := <-fired:
		if !d.Equal(longAgo) || !timed.out.Load() {
			t.Errorf("deadline %v, out %v", d, timed.out.Load())
		}
	case <-limited(t).Done():
		t.Fatal("a call waits for ever")
	}
	timed.end(false)
	timed.expire()
	if len(fired) != 0 {
		t.Error("set is called after the end")
	}
	none := patience{control: setter(func(time.Time) { t.Error("set without a limit") })}
	none.begin()
	none.rest()
	none.done(context.Canceled)
	none.end(true)
}
