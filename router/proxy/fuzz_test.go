package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
)

// witness is an agent behind in-memory connections, that takes one request of each and holds it against the grammar.
type witness struct {
	wg    sync.WaitGroup
	mu    sync.Mutex
	whole []string // lines of requests
	odd   []string // what another parser might read in another way
}

func (a *witness) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	a.wg.Add(1)
	go func() {
		defer a.wg.Done()
		defer far.Close()
		r := bufio.NewReader(far)
		line, err := readStrictly(r)
		switch {
		case errors.Is(err, errCut):
			return
		case err != nil:
			a.note(&a.odd, line+": "+err.Error())
			return
		}
		a.note(&a.whole, line)
		io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nagent")
		if rest, _ := io.ReadAll(io.LimitReader(r, 200)); len(rest) > 0 {
			a.note(&a.odd, line+": and then "+string(rest))
		}
	}()
	return near, nil
}

func (a *witness) note(where *[]string, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*where = append(*where, text)
}

// decisions is a log that keeps the status of every request for which a version was chosen.
type decisions struct {
	slog.Handler
	mu       sync.Mutex
	statuses []int
}

func (d *decisions) Enabled(context.Context, slog.Level) bool { return true }

func (d *decisions) Handle(_ context.Context, r slog.Record) error {
	version, status := "", 0
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "version":
			version = a.Value.String()
		case "status":
			status = int(a.Value.Int64())
		}
		return true
	})
	if version != "" {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.statuses = append(d.statuses, status)
	}
	return nil
}

// once is a listener of one connection.
type once struct {
	conn chan net.Conn
	done chan struct{}
	end  sync.Once
}

func (l *once) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *once) Close() error   { l.end.Do(func() { close(l.done) }); return nil }
func (l *once) Addr() net.Addr { return &net.TCPAddr{} }

// FuzzRequests sends bytes through the proxy to an agent. However they are read, the agent gets requests that can be read in one
// way only, one for each that the proxy decided on, and none that it did not.
func FuzzRequests(f *testing.F) {
	f.Add([]byte{})
	for _, tt := range framing {
		if len(tt.body) < 1000 {
			f.Add([]byte("POST /agents/support-agent/a HTTP/1.1\r\nHost: x\r\n" + tt.head + "\r\n\r\n" + tt.body))
		}
	}
	for _, tt := range shapes {
		if len(tt.raw) < 1000 {
			f.Add([]byte(strings.ReplaceAll(tt.raw, "{P}", "/agents/"+agent)))
		}
	}
	r, err := router.New(router.Options{Agents: map[string]router.AgentOptions{
		agent: {Stable: "v41", Versions: map[string]api.Version{"v41": {URL: "http://agent.example"}}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var seen decisions
		var a witness
		p, err := New(r, Options{AccessLog: slog.New(&seen), AccessSample: 1, ClientRead: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		out := p.ways.Load().usual.transport
		out.DialContext = a.dial
		near, far := net.Pipe()
		l := &once{conn: make(chan net.Conn, 1), done: make(chan struct{})}
		l.conn <- far
		over := make(chan struct{})
		s := &http.Server{Handler: p, ReadHeaderTimeout: 50 * time.Millisecond, IdleTimeout: 50 * time.Millisecond, MaxHeaderBytes: 64 << 10,
			ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
			ConnState: func(_ net.Conn, state http.ConnState) {
				if state == http.StateClosed {
					close(over)
				}
			}}
		go s.Serve(l) //nolint:errcheck // ends with Close
		near.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			near.Write(raw)
			io.WriteString(near, last)
		}()
		answer, _ := io.ReadAll(near)
		near.Close()
		s.Close()
		select {
		case <-over: // after the last handler
		case <-limited(t).Done():
			t.Fatal("a request never ends")
		}
		out.CloseIdleConnections()
		a.wg.Wait()

		a.mu.Lock()
		defer a.mu.Unlock()
		seen.mu.Lock()
		defer seen.mu.Unlock()
		if len(a.odd) > 0 {
			t.Errorf("at the agent: %q", a.odd)
		}
		if len(raw) == 0 && len(a.whole) != 1 {
			t.Errorf("a plain request did not reach the agent: %v", seen.statuses)
		}
		fine := len(slices.DeleteFunc(slices.Clone(seen.statuses), func(s int) bool { return s != 200 }))
		if len(a.whole) < fine || len(a.whole) > len(seen.statuses) {
			t.Errorf("the agent got %q, the proxy decided %v", a.whole, seen.statuses)
		}
		if _, after, broken := strings.Cut(string(answer), "body could not be read"); broken && strings.Contains(after, "HTTP/1.1 ") {
			t.Errorf("a request was taken from behind a broken body: %q", answer)
		}
		if n := strings.Count(string(answer), "\r\n\r\nagent"); n > len(a.whole) {
			t.Errorf("%d answers of an agent that was asked %q", n, a.whole)
		}
	})
}
