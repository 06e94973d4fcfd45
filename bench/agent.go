package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// What the agent answers and is asked, in bytes, and how often a stream that is measured gets an event.
const (
	questionSize = 1 << 10
	answerSize   = 2 << 10
	eventEvery   = 10 * time.Millisecond
)

// agent stands for one version: it answers JSON at once, streams events with the time of writing at …/events, and holds the
// streams of …/idle open after one event until they are released.
type agent struct {
	addr    string
	server  *fasthttp.Server
	answer  []byte
	asked   atomic.Int64                  // requests so far
	release atomic.Pointer[chan struct{}] // closed to end the idle streams
}

func startAgent() (*agent, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for an agent: %w", err)
	}
	a := &agent{addr: l.Addr().String(), answer: document("answer", answerSize)}
	a.free()
	a.server = &fasthttp.Server{Handler: a.serve, NoDefaultServerHeader: true, ReadBufferSize: 16 << 10}
	go func() { _ = a.server.Serve(l) }()
	return a, nil
}

func (a *agent) serve(c *fasthttp.RequestCtx) {
	a.asked.Add(1)
	path := string(c.Path())
	switch {
	case strings.HasSuffix(path, "/events"):
		c.SetContentType("text/event-stream")
		n, _ := strconv.Atoi(string(c.QueryArgs().Peek("n")))
		c.SetBodyStreamWriter(func(w *bufio.Writer) { events(w, n) })
	case strings.HasSuffix(path, "/idle"):
		c.SetContentType("text/event-stream")
		release := *a.release.Load()
		c.SetBodyStreamWriter(func(w *bufio.Writer) {
			if _, err := w.WriteString("data: hello\n\n"); err == nil && w.Flush() == nil {
				<-release
			}
		})
	default:
		c.SetContentType("application/json")
		c.SetBody(a.answer)
	}
}

// free ends the idle streams; without it their connections would add up to more than a process may have.
func (a *agent) free() {
	next := make(chan struct{})
	if old := a.release.Swap(&next); old != nil {
		close(*old)
	}
}

// events writes n events, each with the time of its writing in Unix nanoseconds.
func events(w *bufio.Writer, n int) {
	tick := time.NewTicker(eventEvery)
	defer tick.Stop()
	for range n {
		<-tick.C
		fmt.Fprintf(w, "data: %d\n\n", time.Now().UnixNano())
		if w.Flush() != nil {
			return
		}
	}
}

// document is a JSON object of the size in bytes.
func document(name string, size int) []byte {
	head := `{"` + name + `":"`
	return append(append([]byte(head), bytes.Repeat([]byte("x"), size-len(head)-2)...), `"}`...)
}
