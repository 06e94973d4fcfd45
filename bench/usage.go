package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// tick is the unit of the times in /proc/PID/stat: 10 ms on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// usage is what a process and its descendants have used: CPU time since their start, and memory now, in bytes.
type usage struct {
	cpu time.Duration
	rss int64
}

// measure adds up the tree of processes below and with pid. A process that ends meanwhile counts nothing.
func measure(pid int) usage {
	type process struct {
		parent int
		usage
	}
	all := map[int]process{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		f := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:]) // the name may hold blanks; the state is f[0]
		if len(f) < 22 {
			continue
		}
		n := func(i int) int64 { v, _ := strconv.ParseInt(string(f[i]), 10, 64); return v }
		all[id] = process{int(n(1)), usage{time.Duration(n(11)+n(12)) * tick, n(21) * int64(os.Getpagesize())}}
	}
	var sum usage
	for id, p := range all {
		for up, hops := id, 0; up > 1 && hops < 16; up, hops = all[up].parent, hops+1 {
			if up == pid {
				sum.cpu, sum.rss = sum.cpu+p.cpu, sum.rss+p.rss
				break
			}
		}
	}
	return sum
}
