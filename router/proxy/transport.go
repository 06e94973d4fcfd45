package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"sync/atomic"
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
	transport *http.Transport // shared by all agents with the same header timeout
	idle      time.Duration
}

// ways are the agents' ways out.
type ways struct {
	usual   agentWay
	byAgent map[string]agentWay
}

func newWays(o Options, timeouts map[string]Timeouts) *ways {
	header := o.HeaderTimeout
	if header == 0 {
		header = 2 * time.Minute
	}
	transports := map[time.Duration]*http.Transport{header: newTransport(o, header)}
	w := &ways{usual: agentWay{transport: transports[header]}, byAgent: map[string]agentWay{}}
	for agent, t := range timeouts {
		if t.Header == 0 {
			t.Header = header
		}
		if transports[t.Header] == nil {
			transports[t.Header] = newTransport(o, t.Header)
		}
		w.byAgent[agent] = agentWay{transport: transports[t.Header], idle: t.Idle}
	}
	return w
}

func (w *ways) of(agent string) agentWay {
	if way, ok := w.byAgent[agent]; ok {
		return way
	}
	return w.usual
}

// close drops the idle connections to agents.
func (w *ways) close() {
	w.usual.transport.CloseIdleConnections()
	for _, way := range w.byAgent {
		way.transport.CloseIdleConnections()
	}
}

func newTransport(o Options, header time.Duration) *http.Transport {
	dial, idle := o.DialTimeout, o.IdlePerHost
	if dial == 0 {
		dial = 5 * time.Second
	}
	if idle == 0 {
		idle = 256
	}
	return &http.Transport{
		DialContext:           (&net.Dialer{Timeout: dial, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   dial,
		ResponseHeaderTimeout: header,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   idle,
		DisableCompression:    true, // what the agent sends is what the client gets
		ForceAttemptHTTP2:     true,
	}
}

// sender sends a request to one of the instances of its version. It asks the next one only if no connection could be made, so
// that not a byte was sent: an agent's tool calls must not happen twice. (Transport itself sends a request again that met an idle
// connection just as the agent closed it, if it can be replayed.) It never asks another version: that would hide the evidence
// against this one, and split the conversation.
type sender struct{ proxy *Proxy }

// RoundTrip implements http.RoundTripper.
func (s sender) RoundTrip(req *http.Request) (*http.Response, error) {
	x := exchangeOf(req)
	set := x.decision.Upstreams()
	path, rawPath := req.URL.Path, req.URL.RawPath
	first := set.Pick()
	if first == nil {
		return nil, errUnreachable
	}
	body := hold(req, set)
	defer body.settle()
	var tried []*upstream.Instance
	for i := first; ; {
		req.URL.Path, req.URL.RawPath = path, rawPath
		(&httputil.ProxyRequest{Out: req}).SetURL(i.URL())
		x.ask(i)
		resp, err := x.way.transport.RoundTrip(req)
		switch {
		case err == nil || !dialFailed(err):
			if x.in.Context().Err() == nil {
				set.Reached(i)
			}
			return resp, err
		case req.Context().Err() != nil:
			return nil, err // the client did not wait for the connection
		}
		set.Unreachable(i)
		tried = append(tried, i)
		next := set.Pick(tried...)
		if next == nil || body.touched() {
			return nil, err
		}
		i = next
	}
}

// dialFailed reports whether err is that no connection could be made.
func dialFailed(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// heldBody is a request's body that survives a connection that could not be made: the transport closes it then.
type heldBody struct {
	io.ReadCloser
	read, closed atomic.Bool
}

// hold wraps the body of a request that may go to a second instance. It is nil when that can't be.
func hold(req *http.Request, set *upstream.Set) *heldBody {
	if req.Body == nil || req.Body == http.NoBody || set.Len() == 1 {
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
