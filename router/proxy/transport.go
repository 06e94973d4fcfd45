package proxy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aviary-rollouts/aviary/router/upstream"
)

// errUnreachable is the answer for a version none of whose instances could be reached lately.
var errUnreachable = errors.New("none of the version's instances can be reached")

// Timeouts are one agent's own.
type Timeouts struct {
	Header time.Duration // from the request's end to the header of the response; 0: Options.HeaderTimeout
	Idle   time.Duration // between two parts of a response's body, after which it is broken off; 0: none. Not for upgraded connections.
}

// agentWay is how the requests of an agent go out.
type agentWay struct {
	*transports
	idle time.Duration
}

// transports are shared by all agents with the same header timeout.
type transports struct {
	transport *http.Transport // for http and https; the latter in HTTP/2 where the agent can
	h2c       *http.Transport // for upstream.SchemeH2C
}

// ways are the agents' ways out.
type ways struct {
	usual    agentWay
	byAgent  map[string]agentWay
	byHeader map[time.Duration]*transports
}

// newWays are the ways by the timeouts. Transports of before that fit stay, with their connections.
func newWays(o Options, timeouts map[string]Timeouts, before *ways) *ways {
	w := &ways{byAgent: map[string]agentWay{}, byHeader: map[time.Duration]*transports{}}
	way := func(t Timeouts) agentWay {
		header := cmp.Or(t.Header, o.HeaderTimeout, 2*time.Minute)
		if w.byHeader[header] == nil && before != nil {
			w.byHeader[header] = before.byHeader[header]
		}
		if w.byHeader[header] == nil {
			w.byHeader[header] = newTransports(o, header)
		}
		return agentWay{w.byHeader[header], t.Idle}
	}
	w.usual = way(Timeouts{})
	for agent, t := range timeouts {
		w.byAgent[agent] = way(t)
	}
	return w
}

func (w *ways) of(agent string) agentWay {
	if way, ok := w.byAgent[agent]; ok {
		return way
	}
	return w.usual
}

// close drops the idle connections to agents, but those that stay a way.
func (w *ways) close(stay *ways) {
	for header, t := range w.byHeader {
		if stay == nil || stay.byHeader[header] != t {
			t.transport.CloseIdleConnections()
			t.h2c.CloseIdleConnections()
		}
	}
}

func newTransports(o Options, header time.Duration) *transports {
	dial := cmp.Or(o.DialTimeout, 5*time.Second)
	usual := &http.Transport{
		DialContext:           (&dialer{net.Dialer{Timeout: dial, KeepAlive: 30 * time.Second}}).dial,
		TLSHandshakeTimeout:   dial,
		ResponseHeaderTimeout: header,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   cmp.Or(o.IdlePerHost, 256),
		WriteBufferSize:       2 << 10, // of every connection, held for as long as a stream lasts: a head fits
		ReadBufferSize:        2 << 10,
		DisableCompression:    true, // what the agent sends is what the client gets
		ForceAttemptHTTP2:     true,
		// Many requests share a connection of HTTP/2: one whose agent is gone without a word must not take them all.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	h2c := usual.Clone()
	h2c.Protocols = new(http.Protocols)
	h2c.Protocols.SetUnencryptedHTTP2(true)
	return &transports{usual, h2c}
}

// send is RoundTrip by the transport that speaks the protocol of the URL's scheme.
func (t *transports) send(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == upstream.SchemeH2C {
		req.URL.Scheme = "http"
		return t.h2c.RoundTrip(req)
	}
	return t.transport.RoundTrip(req)
}

// dialer makes connections to agents, and notes which instances can be reached. That is known as soon as there is a connection,
// where an answer may take an agent minutes.
type dialer struct{ net.Dialer }

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil && (ctx.Err() != nil || exhausted(err)) {
		return nil, err // that says nothing about the instance
	}
	noted := false
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		noted = x.decision.Upstreams().Dialled(addr, err == nil)
	}
	if err != nil {
		return nil, &dialError{err, noted}
	}
	return conn, nil
}

// exhausted reports whether a connection could not be made because this machine has none left to give.
func exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.EADDRNOTAVAIL) ||
		errors.Is(err, syscall.ENOBUFS)
}

// dialError is that an instance can't be reached: not a byte was sent to it.
type dialError struct {
	error
	noted bool // by the set of instances
}

func (e *dialError) Unwrap() error { return e.error }

// sender sends a request to one of the instances of its version. It asks the next one only if no connection could be made, so
// that not a byte was sent: an agent's tool calls must not happen twice. (Transport itself sends a request again that met an idle
// connection just as the agent closed it, if it can be replayed.) It never asks another version: that would hide the evidence
// against this one, and split the conversation.
type sender struct{ proxy *Proxy }

// maxDialTimeouts is how many instances a request waits for that take all of the dial timeout.
const maxDialTimeouts = 2

// RoundTrip implements http.RoundTripper.
func (s sender) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchangeOf(req)
	set := x.decision.Upstreams()
	i := set.Pick()
	if i == nil {
		return nil, errUnreachable
	}
	path, rawPath := req.URL.Path, req.URL.RawPath
	body := x.hold(req, set)
	defer body.settle()
	var tried []*upstream.Instance
	for timeouts := 0; ; {
		req.URL.Path, req.URL.RawPath = path, rawPath
		(&httputil.ProxyRequest{Out: req}).SetURL(i.URL())
		if x.small != nil {
			req.Body = io.NopCloser(bytes.NewReader(x.small)) // which the transport knows to be in memory
		}
		x.ask(i)
		resp, err := x.way.send(req)
		if err == nil {
			set.Reached(i) // perhaps over a connection that was there before the instance was left out
			return resp, nil
		}
		var failed *dialError
		if !errors.As(err, &failed) {
			return nil, err
		}
		if !failed.noted {
			set.Unreachable(i)
		}
		if os.IsTimeout(failed.error) {
			timeouts++
		}
		tried = append(tried, i)
		next := set.Pick(tried...)
		if next == nil || body.touched() || timeouts == maxDialTimeouts || req.Context().Err() != nil {
			return nil, err
		}
		i = next
	}
}

// heldBody is a request's body that survives a connection that could not be made: the transport closes it then.
type heldBody struct {
	io.ReadCloser
	read, closed atomic.Bool
}

// hold wraps the body of a request that may go to a second instance. It is nil when that can't be.
func (x *exchange) hold(req *http.Request, set *upstream.Set) *heldBody {
	if req.Body == nil || req.Body == http.NoBody || set.Len() == 1 || x.small != nil {
		return nil
	}
	b := &heldBody{ReadCloser: req.Body}
	req.Body = b
	return b
}

// Read reads the body.
func (b *heldBody) Read(p []byte) (int, error) {
	b.read.Store(true)
	return b.ReadCloser.Read(p)
}

// Close closes a body that was read, and notes it for one that was not.
func (b *heldBody) Close() error {
	b.closed.Store(true)
	if b.read.Load() {
		return b.ReadCloser.Close()
	}
	return nil
}

func (b *heldBody) touched() bool { return b != nil && b.read.Load() }

// settle does what Close put off.
func (b *heldBody) settle() {
	if b != nil && b.closed.Load() && !b.read.Load() {
		_ = b.ReadCloser.Close()
	}
}
