package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// teller is an agent that begins a stream, and ends it when told to. Asked for an upgrade, it echoes lines.
type teller struct {
	url    string
	finish chan struct{}
}

func newTeller(t *testing.T) *teller {
	t.Helper()
	a := &teller{finish: make(chan struct{})}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.Header.Get("Upgrade") != "":
			echo(w)
		case strings.HasSuffix(req.URL.Path, "/stream"):
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: begun\n\n")
			w.(http.Flusher).Flush()
			select {
			case <-a.finish:
				io.WriteString(w, "data: ended\n\n")
			case <-req.Context().Done():
			}
		}
	}))
	t.Cleanup(s.Close)
	a.url = s.URL
	return a
}

func echo(w http.ResponseWriter) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	io.Copy(conn, buf)
}

// refused waits until the proxy takes no connection any more.
func (p *process) refused(t *testing.T) {
	t.Helper()
	eventually(t, "new connections are refused", func() bool {
		c, err := net.Dial("tcp", p.proxy)
		if err != nil {
			return true
		}
		c.Close()
		return false
	})
}

func (p *process) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestStopTellsBalancersFirst: readiness says so, and everybody is served until the delay is over.
func TestStopTellsBalancersFirst(t *testing.T) {
	t.Parallel()
	p := start(t, settingsFile(t, t.TempDir(), newAgents(t), "timeouts: {shutdown_delay: 5s}\n"))
	p.stop()
	eventually(t, "the gateway says it is stopping", func() bool { return p.client.Ready(t.Context()) != nil })
	if got := p.ask(t); got != "/v41/chat" {
		t.Errorf("while the delay lasts: %q", got)
	}
	p.refused(t)
	if code := p.exit(t); code != 0 {
		t.Errorf("exit %d: %s", code, p.err)
	}
}

// TestStopKeepsWhatIsUnderWay: streams of every HTTP and upgraded connections go on, idle connections end, and new ones are refused.
func TestStopKeepsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), newAuthority(t)
	ca.write(dir, "front")
	trust := ca.client(nil).Transport.(*http.Transport).TLSClientConfig
	for _, tt := range []struct {
		name, scheme, more string
		set                func(*http.Protocols)
	}{
		{"HTTP/1.1", "http", "", func(p *http.Protocols) { p.SetHTTP1(true) }},
		{"h2c", "http", "", func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }},
		{"HTTP/2", "https", fmt.Sprintf("tls: {cert_file: %[1]s/front.crt, key_file: %[1]s/front.key}\n", dir), func(p *http.Protocols) { p.SetHTTP2(true) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := newTeller(t)
			p := start(t, settingsFile(t, t.TempDir(), a.url, tt.more))
			transport := &http.Transport{TLSClientConfig: trust.Clone(), Protocols: new(http.Protocols)}
			tt.set(transport.Protocols)
			t.Cleanup(transport.CloseIdleConnections)
			c := &http.Client{Transport: transport, Timeout: 30 * time.Second}
			at := tt.scheme + "://" + p.proxy + "/agents/support-agent/"
			resp, err := c.Get(at + "stream")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			events := bufio.NewReader(resp.Body)
			if line, err := events.ReadString('\n'); err != nil || line != "data: begun\n" {
				t.Fatalf("first line %q, %v", line, err)
			}
			p.stop()
			p.refused(t)
			eventually(t, "the connection takes no other request", func() bool {
				other, err := c.Get(at + "more")
				if err == nil {
					other.Body.Close()
				}
				return err != nil
			})
			close(a.finish)
			if rest, err := io.ReadAll(events); string(rest) != "\ndata: ended\n\n" || err != nil {
				t.Errorf("rest %q, %v", rest, err)
			}
			if code := p.exit(t); code != 0 || strings.Contains(p.err.String(), "requests cut") {
				t.Errorf("exit %d: %s", code, p.err)
			}
		})
	}
}

func TestStopClosesIdleConnectionsAndWaitsForUpgraded(t *testing.T) {
	t.Parallel()
	p := start(t, settingsFile(t, t.TempDir(), newTeller(t).url, "timeouts: {shutdown: 20s}\n"))
	idle, live := p.dial(t), p.dial(t)
	fmt.Fprintf(idle, "GET /agents/support-agent/x HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(idle), nil)
	if err != nil || resp.Close {
		t.Fatalf("answer %v, %v: want one that keeps the connection", resp, err)
	}
	fmt.Fprintf(live, "GET /agents/support-agent/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	lines := bufio.NewReader(live)
	if resp, err := http.ReadResponse(lines, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answer %v, %v", resp, err)
	}
	p.stop()
	p.refused(t)
	if n, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("idle connection: %d bytes, %v: want its end", n, err)
	}
	io.WriteString(live, "still here\n")
	if line, err := lines.ReadString('\n'); line != "still here\n" || err != nil {
		t.Errorf("upgraded connection: %q, %v", line, err)
	}
	if err := p.client.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("readiness: %v", err)
	}
	live.Close()
	if code := p.exit(t); code != 0 || strings.Contains(p.err.String(), "requests cut") {
		t.Errorf("exit %d: %s", code, p.err)
	}
}

func TestStopCutsUpgradedAtTheDeadline(t *testing.T) {
	t.Parallel()
	p := start(t, settingsFile(t, t.TempDir(), newTeller(t).url, "timeouts: {shutdown: 50ms}\n"))
	live := p.dial(t)
	fmt.Fprintf(live, "GET /agents/support-agent/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	lines := bufio.NewReader(live)
	if resp, err := http.ReadResponse(lines, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answer %v, %v", resp, err)
	}
	p.stop()
	if rest, _ := io.ReadAll(lines); len(rest) > 0 {
		t.Errorf("rest %q", rest)
	}
	if code := p.exit(t); code != 0 || !strings.Contains(p.err.String(), "requests cut at the deadline") {
		t.Errorf("exit %d: %s", code, p.err)
	}
}

// TestConnectionsAreLimited: those beyond the limit wait until another ends.
func TestConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	p := start(t, settingsFile(t, t.TempDir(), newTeller(t).url, "max_connections: 1\n"))
	first, second := p.dial(t), p.dial(t)
	request := "GET /agents/support-agent/x HTTP/1.1\r\nHost: x\r\n\r\n"
	io.WriteString(first, request)
	if _, err := http.ReadResponse(bufio.NewReader(first), nil); err != nil {
		t.Fatal(err)
	}
	io.WriteString(second, request)
	answered := make(chan error, 1)
	go func() {
		_, err := http.ReadResponse(bufio.NewReader(second), nil)
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("the second connection was served beside the first: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	first.Close()
	if err := <-answered; err != nil {
		t.Errorf("the second connection: %v", err)
	}
}

// TestHangupWhileStopping: a supervisor that asks for the settings to be read again, too late, does not cut the streams that are left. It takes
// a process of its own: in this one another test's gateway would take the signal.
func TestHangupWhileStopping(t *testing.T) {
	t.Parallel()
	a := newTeller(t)
	addrFile := filepath.Join(t.TempDir(), "addr.json")
	child := exec.CommandContext(t.Context(), os.Args[0], "--config", settingsFile(t, t.TempDir(), a.url, ""), "--addr-file", addrFile)
	child.Env = append(os.Environ(), beGateway+"=1")
	p := &process{err: &output{}}
	child.Stderr = p.err
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill() })
	p.reach(t, addrFile)
	resp, err := http.Get("http://" + p.proxy + "/agents/support-agent/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := bufio.NewReader(resp.Body)
	if line, err := events.ReadString('\n'); err != nil || line != "data: begun\n" {
		t.Fatalf("first line %q, %v", line, err)
	}
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGHUP} {
		if err := child.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		p.refused(t)
	}
	close(a.finish)
	if rest, err := io.ReadAll(events); string(rest) != "\ndata: ended\n\n" || err != nil {
		t.Errorf("rest %q, %v", rest, err)
	}
	if err := child.Wait(); err != nil {
		t.Errorf("%v: %s", err, p.err)
	}
}
