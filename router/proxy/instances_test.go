package proxy

import (
	"bufio"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/upstream"
)

// closer is an agent that answers the first request of a connection, and closes the connection on the second one without a byte
// of an answer: what a client sees that writes just as an idle connection is closed.
type closer struct {
	mu   sync.Mutex
	seen []string // methods of the requests that arrived, in order
	url  string
}

func newCloser(t *testing.T) *closer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &closer{url: "http://" + l.Addr().String()}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { c.serve(t, conn) })
		}
	})
	return c
}

func (c *closer) serve(t *testing.T, conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for n := range 2 {
		req, err := http.ReadRequest(r)
		if err != nil {
			return // the proxy has closed it
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			t.Error(err)
		}
		c.mu.Lock()
		c.seen = append(c.seen, req.Method)
		c.mu.Unlock()
		if n == 0 {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}
}

func (c *closer) count(method string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.seen {
		if m == method {
			n++
		}
	}
	return n
}

// TestConnectionClosedUnderARequest: what may have been acted on is not sent again, on the same instance or another.
func TestConnectionClosedUnderARequest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		method, body string
		headers      []string
		status       int
		arrived      int // at the agent
	}{
		"GET":                       {method: "GET", status: 200, arrived: 2},
		"POST":                      {method: "POST", body: "pay", status: 502, arrived: 1},
		"POST without a body":       {method: "POST", status: 502, arrived: 1},
		"PUT":                       {method: "PUT", body: "set", status: 502, arrived: 1},
		"DELETE":                    {method: "DELETE", status: 502, arrived: 1},
		"GET with a body":           {method: "GET", body: "q", status: 502, arrived: 1},
		"POST that may be repeated": {method: "POST", headers: []string{"Idempotency-Key", "1"}, status: 200, arrived: 2},
		"but its body is gone":      {method: "POST", body: "pay", headers: []string{"Idempotency-Key", "1"}, status: 502, arrived: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCloser(t)
			w := spread(t, upstream.Limits{}, Timeouts{}, c.url, c.url+"/second")
			if resp, _ := w.do("OPTIONS", "/", nil); resp.StatusCode != 200 {
				t.Fatalf("first answer %d", resp.StatusCode)
			}
			var body io.Reader
			if tt.body != "" {
				body = strings.NewReader(tt.body)
			}
			resp, _ := w.do(tt.method, "/", body, tt.headers...)
			if resp.StatusCode != tt.status {
				t.Errorf("answer %d, want %d", resp.StatusCode, tt.status)
			}
			if n := c.count(tt.method); n != tt.arrived {
				t.Errorf("%d requests arrived, want %d", n, tt.arrived)
			}
			if all := w.instances().Status(); !all[0].Healthy || !all[1].Healthy {
				t.Errorf("an instance that took connections is left out: %+v", all)
			}
		})
	}
}

// instances are those of stable.
func (w *world) instances() *upstream.Set {
	w.t.Helper()
	d, err := w.router.Decide(agent, router.Request{})
	if err != nil {
		w.t.Fatal(err)
	}
	return d.Upstreams()
}

// reserve is an address that refuses connections until listen is called, and that nobody else can take.
func reserve(t *testing.T) (addr string, listen func() net.Listener) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	must(err)
	f := os.NewFile(uintptr(fd), "reserved")
	t.Cleanup(func() { f.Close() })
	must(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	name, err := syscall.Getsockname(fd)
	must(err)
	addr = fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	return addr, func() net.Listener {
		t.Helper()
		must(syscall.Listen(fd, 128))
		l, err := net.FileListener(f)
		must(err)
		return l
	}
}

// TestInstanceIsBackBeforeItsAnswer: agents think for long, and must not stay left out meanwhile.
func TestInstanceIsBackBeforeItsAnswer(t *testing.T) {
	t.Parallel()
	addr, listen := reserve(t)
	w := spread(t, upstream.Limits{}, Timeouts{}, "http://"+addr)
	eventually(t, "the instance is left out", func() bool {
		resp, _ := w.get("/")
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	if n := w.instances().Unreached(); n == 0 {
		t.Error("nobody counted the request that had nowhere to go")
	}
	release := make(chan struct{})
	var arrived atomic.Int64
	s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived.Add(1)
		<-release
	})}
	go s.Serve(listen())
	defer s.Close()
	var wg sync.WaitGroup
	eventually(t, "a probe arrives", func() bool {
		if w.instances().Status()[0].Live < 4 {
			wg.Go(func() { w.get("/") })
		}
		return arrived.Load() > 0
	})
	eventually(t, "the instance is well before it has answered", func() bool { return w.instances().Status()[0].Healthy })
	close(release)
	wg.Wait()
}

// TestSlowClientHoldsTheAgentBack: what a client does not take stays with the agent.
func TestSlowClientHoldsTheAgentBack(t *testing.T) {
	t.Parallel()
	const size = 512 << 20
	var written atomic.Int64
	w := newWorld(t, func(rw http.ResponseWriter, req *http.Request) {
		part := make([]byte, 64<<10)
		for written.Load() < size {
			n, err := rw.Write(part)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	}, say(""))
	resp := w.open(limited(t))
	last, still := int64(-1), 0
	eventually(t, "the agent has to wait", func() bool {
		if now := written.Load(); now == last && now > 0 {
			still++
		} else {
			last, still = now, 0
		}
		return still > 25
	})
	if n := written.Load(); n > size/4 {
		t.Errorf("the agent could write %d MiB that nobody took", n>>20)
	}
	before := written.Load()
	if _, err := io.CopyN(io.Discard, resp.Body, 64<<20); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the agent goes on", func() bool { return written.Load() > before })
}

// TestAgentThatRefusesABodyUnread: a client that waits for a word before its body gets the refusal, and keeps its body.
func TestAgentThatRefusesABodyUnread(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusExpectationFailed, http.StatusRequestEntityTooLarge} {
		for _, several := range []bool{false, true} {
			t.Run(fmt.Sprint(status, " several instances ", several), func(t *testing.T) {
				t.Parallel()
				refuses := serve(t, func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "no", status) })
				urls := []string{refuses}
				if several {
					urls = append(urls, refuses+"/second")
				}
				w := spread(t, upstream.Limits{}, Timeouts{}, urls...)
				c := w.dial()
				fmt.Fprintf(c, "POST /agents/%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n", agent)
				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil || resp.StatusCode != status {
					t.Fatalf("answer %v, %v: want %d and no 100 before it", resp, err, status)
				}
				if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "no\n" || !resp.Close {
					t.Errorf("body %q, %v; close %t: the connection can't go on with a body that nobody reads", body, err, resp.Close)
				}
			})
		}
	}
}

// TestAgentsOfHTTP2 reaches agents over TLS, which negotiates HTTP/2, and without TLS, which their URL says.
func TestAgentsOfHTTP2(t *testing.T) {
	t.Parallel()
	talk := http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		rw.Header().Set("Trailer", "Grpc-Status")
		rw.Header().Set("X-Proto", req.Proto+" "+req.Header.Get("Te"))
		http.NewResponseController(rw).Flush()
		for lines := bufio.NewReader(req.Body); ; { // an answer to each message, while more may come
			line, err := lines.ReadString('\n')
			if err != nil {
				break
			}
			io.WriteString(rw, "echo "+line)
			http.NewResponseController(rw).Flush()
		}
		rw.Header().Set("Grpc-Status", "0")
	})
	for _, scheme := range []string{"https", upstream.SchemeH2C} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewUnstartedServer(talk)
			t.Cleanup(s.Close)
			base := ""
			if scheme == "https" {
				s.EnableHTTP2 = true
				s.StartTLS()
				base = s.URL
			} else {
				s.Config.Protocols = new(http.Protocols)
				s.Config.Protocols.SetUnencryptedHTTP2(true)
				s.Start()
				base = strings.Replace(s.URL, "http:", "h2c:", 1)
			}
			w := spread(t, upstream.Limits{}, Timeouts{}, base+"/base")
			if scheme == "https" {
				roots := x509.NewCertPool()
				roots.AddCert(s.Certificate())
				w.proxy.ways.Load().of(agent).transport.TLSClientConfig.RootCAs = roots
			}
			pr, pw := io.Pipe()
			req, err := http.NewRequestWithContext(limited(t), http.MethodPost, w.url("/call"), pr)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Te", "trailers")
			resp, err := w.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got := resp.Header.Get("X-Proto"); resp.StatusCode != 200 || got != "HTTP/2.0 trailers" {
				t.Fatalf("answer %d, reached as %q", resp.StatusCode, got)
			}
			lines := bufio.NewReader(resp.Body)
			for n := range 3 {
				fmt.Fprintf(pw, "%d\n", n)
				if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("echo %d\n", n) {
					t.Fatalf("message %d: %q, %v", n, line, err)
				}
			}
			pw.Close()
			if _, err := lines.ReadByte(); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v", err)
			}
			if got := resp.Trailer.Get("Grpc-Status"); got != "0" {
				t.Errorf("trailer %v", resp.Trailer)
			}
		})
	}
}

// TestConnectionsOutliveAReload: taking over settings must not cost every agent new connections.
func TestConnectionsOutliveAReload(t *testing.T) {
	t.Parallel()
	var opened atomic.Int64
	s := httptest.NewUnstartedServer(say("ok"))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	w := spread(t, upstream.Limits{}, Timeouts{}, s.URL)
	w.get("/")
	for range 3 {
		apply, err := w.proxy.Prepare(nil, map[string]Timeouts{"other": {Header: time.Second}, agent: {Idle: time.Hour}})
		if err != nil {
			t.Fatal(err)
		}
		apply()
		w.get("/")
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}
