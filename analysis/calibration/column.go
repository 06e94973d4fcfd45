package calibration

// Column is one number per poll. Polls that nothing was added to are 0 and cost nothing: instances come and go.
type Column struct{ pages [][]float32 }

const pageSize = 512 // polls

// At is the number of a poll, from 0.
func (c *Column) At(poll int) float64 {
	if i := poll / pageSize; i < len(c.pages) && c.pages[i] != nil {
		return float64(c.pages[i][poll%pageSize])
	}
	return 0
}

// page is the page of a poll, for writing.
func (c *Column) page(poll int) []float32 {
	i := poll / pageSize
	for len(c.pages) <= i {
		c.pages = append(c.pages, nil)
	}
	if c.pages[i] == nil {
		c.pages[i] = make([]float32, pageSize)
	}
	return c.pages[i]
}

func (c *Column) add(poll int, v float64) { c.page(poll)[poll%pageSize] += float32(v) }

// sum is the sum over polls [from, to).
func (c *Column) sum(from, to int) float64 {
	s := 0.0
	for p := from; p < to; p++ {
		if i := p / pageSize; i >= len(c.pages) || c.pages[i] == nil {
			p = (i+1)*pageSize - 1
			continue
		}
		s += c.At(p)
	}
	return s
}

// cut is polls [from, to) alone.
func (c *Column) cut(from, to int) Column {
	var out Column
	for p := from; p < to; p++ {
		if v := c.At(p); v != 0 {
			out.page(p - from)[(p-from)%pageSize] = float32(v)
		}
	}
	return out
}

// empty reports whether nothing was ever added.
func (c *Column) empty() bool { return len(c.pages) == 0 }
