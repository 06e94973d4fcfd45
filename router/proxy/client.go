package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// longAgo is a deadline that ends what is under way.
var longAgo = time.Unix(1, 0)

// client is the exchange's ResponseWriter: it counts what is sent, and gives up on a client that takes nothing.
type client struct {
	http.ResponseWriter
	control *http.ResponseController
	old     bool         // it speaks HTTP/1.0
	body    *requestBody // nil: the request has none
	status  int          // the final one; 0: none yet
	sent    atomic.Int64
	reading patience
	writing patience
}

// open makes the client ready. Limits of 0 are none.
func (c *client) open(w http.ResponseWriter, req *http.Request, read, write time.Duration) {
	c.ResponseWriter = w
	c.control = http.NewResponseController(w)
	c.old = !req.ProtoAtLeast(1, 1)
	timed := req.ProtoMajor >= 2
	c.reading.limit, c.reading.timed, c.reading.control = read, timed, c.control
	c.writing.limit, c.writing.timed, c.writing.control = write, timed, c.control
	c.writing.write = true
}

// close is for the end of the handler: what net/http has still to write, and of HTTP/1 to read, is bounded too.
func (c *client) close(bodyLeft bool) {
	c.reading.end(bodyLeft && !c.reading.timed)
	c.writing.end(true)
}

// Unwrap is for http.ResponseController.
func (c *client) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// WriteHeader notes the final status, and ends connections that must take no other request. One is that of HTTP/1 whose request
// has not been read to its end by now: net/http, once in full duplex, would go on at whatever byte the body broke off and take the
// rest of it for requests. The other is that of HTTP/1.0, in which net/http does not see a Transfer-Encoding, and again would take
// the body for requests (RFC 9112, section 6.1).
func (c *client) WriteHeader(code int) {
	if (code >= 200 || code == http.StatusSwitchingProtocols) && c.status == 0 {
		c.status = code
		if c.old || (c.body != nil && !c.body.over.Load() && !c.reading.timed) {
			c.Header()["Connection"] = []string{"close"}
		}
	}
	c.ResponseWriter.WriteHeader(code)
}

// Write fails if the client takes nothing for too long.
func (c *client) Write(p []byte) (int, error) {
	if c.status == 0 {
		c.status = http.StatusOK
	}
	c.writing.begin()
	n, err := c.ResponseWriter.Write(p)
	c.writing.done(err)
	c.sent.Add(int64(n))
	return n, err
}

// FlushError is for http.ResponseController. It fails as Write does.
func (c *client) FlushError() error {
	c.writing.begin()
	err := c.control.Flush()
	c.writing.done(err)
	return err
}

// stalled reports whether the client was given up because it took nothing.
func (c *client) stalled() bool { return c.writing.out.Load() }

// patience bounds how long one call may wait for the client. A deadline of HTTP/1 is the connection's and harms nobody while no
// call waits, so it is moved before every call. One of HTTP/2 ends the stream whenever it passes, so a timer is kept instead,
// which runs only during calls.
type patience struct {
	limit   time.Duration // 0: none
	timed   bool
	write   bool // it is about writing
	control deadlines
	out     atomic.Bool // it ran out

	mu    sync.Mutex
	timer *time.Timer
	ended bool // control must not be used any more
}

// deadlines is what patience needs of an http.ResponseController. A ResponseWriter that can't has no slow client either.
type deadlines interface {
	SetReadDeadline(deadline time.Time) error
	SetWriteDeadline(deadline time.Time) error
}

func (p *patience) set(deadline time.Time) {
	if p.write {
		_ = p.control.SetWriteDeadline(deadline)
		return
	}
	_ = p.control.SetReadDeadline(deadline)
}

func (p *patience) begin() {
	if p.limit == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended: // the transport may still read when the handler is over, and the connection is no longer ours
	case !p.timed:
		p.set(time.Now().Add(p.limit))
	case p.timer == nil:
		p.timer = time.AfterFunc(p.limit, p.expire)
	default:
		p.timer.Reset(p.limit)
	}
}

func (p *patience) done(err error) {
	if p.timed {
		p.mu.Lock()
		if p.timer != nil {
			p.timer.Stop()
		}
		p.mu.Unlock()
	}
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		p.out.Store(true)
	}
}

func (p *patience) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.out.Store(true)
		p.set(longAgo)
	}
}

// end leaves a deadline of one more limit behind if net/http has more to do, and touches the connection no more.
func (p *patience) end(more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if more && p.limit > 0 && !p.out.Load() {
		p.set(time.Now().Add(p.limit))
	}
	p.ended = true
}

// rest takes the deadline away: the connection is now watched for the client's going, for as long as the response takes.
func (p *patience) rest() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit > 0 && !p.timed && !p.ended {
		p.set(time.Time{})
	}
}

// requestBody notes when the client's body breaks or stalls, which is not the agent's fault.
type requestBody struct {
	io.ReadCloser
	exchange *exchange
	over     atomic.Bool // read to its end
	trailer  http.Header // to be filled in with what the client announced; nil: nothing
}

func (b *requestBody) Read(p []byte) (int, error) {
	x := b.exchange
	reading := &x.client.reading
	reading.begin()
	n, err := b.ReadCloser.Read(p)
	reading.done(err)
	x.received.Add(int64(n))
	if x.copy != nil {
		x.copy.take(x, p[:n])
	}
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		if x.copy != nil {
			x.copy.send(x)
		}
		reading.rest()
		b.over.Store(true)
		for name := range b.trailer {
			b.trailer[name] = x.in.Trailer[name]
		}
	case !errors.Is(err, http.ErrBodyReadAfterClose):
		x.broken.Store(true)
	}
	return n, err
}

// tunnel is the connection to an agent after an upgrade. It counts what passes.
type tunnel struct {
	io.ReadWriteCloser
	exchange *exchange
}

func (t *tunnel) Read(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Read(p)
	t.exchange.client.sent.Add(int64(n))
	return n, err
}

func (t *tunnel) Write(p []byte) (int, error) {
	n, err := t.ReadWriteCloser.Write(p)
	t.exchange.received.Add(int64(n))
	return n, err
}

// CloseWrite tells the agent that the client sends no more.
func (t *tunnel) CloseWrite() error {
	if c, ok := t.ReadWriteCloser.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return http.ErrNotSupported
}
