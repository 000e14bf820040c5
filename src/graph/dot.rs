//! Matrix products appended to a graph.

use super::node::{Graph, NodeId, Shape};
use super::op::{DType, Op};
use crate::error::Result;

impl Graph {
    /// Batched matrix product `[B,M,K] x [B,K,N] -> [B,M,N]`, each operand optionally stored transposed. Of a left operand whose rows are one
    /// row repeated, that row's product is repeated.
    pub fn dot(
        &mut self,
        lhs: NodeId,
        rhs: NodeId,
        transpose_lhs: bool,
        transpose_rhs: bool,
    ) -> Result<NodeId> {
        self.float("dot", &[lhs, rhs])?;
        let (a, b) = (self.shape(lhs), self.shape(rhs));
        if a.len() != 3 || b.len() != 3 || a[0] != b[0] {
            return self.bad("dot", &[lhs, rhs], "needs [B,M,K] and [B,K,N] with equal B");
        }
        let (m, k) = if transpose_lhs {
            (a[2], a[1])
        } else {
            (a[1], a[2])
        };
        let (k2, n) = if transpose_rhs {
            (b[2], b[1])
        } else {
            (b[1], b[2])
        };
        if k != k2 {
            return self.bad(
                "dot",
                &[lhs, rhs],
                format!("the inner sizes {k} and {k2} differ"),
            );
        }
        let shape = vec![a[0], m, n];
        if let Some(row) = self.repeated(lhs, if transpose_lhs { 2 } else { 1 })? {
            let product = self.dot(row, rhs, transpose_lhs, transpose_rhs)?;
            return self.broadcast(product, &shape);
        }
        let op = Op::Dot {
            transpose_lhs,
            transpose_rhs,
        };
        Ok(self.append(op, vec![lhs, rhs], shape, DType::F32))
    }

    /// One row of a matrix `[B,M,K]` (or column, by the axis) that is that row repeated, `[B,1,K]`.
    fn repeated(&mut self, x: NodeId, axis: usize) -> Result<Option<NodeId>> {
        // A reshape that adds or drops axes of size 1 has the sizes of its operand at the others.
        let long = |shape: &Shape| -> Vec<usize> {
            (0..shape.len()).filter(|&axis| shape[axis] > 1).collect()
        };
        let node = self.node(x);
        let source = match node.op {
            Op::Reshape => node.operands[0],
            _ => x,
        };
        let (to, repeated) = (node.shape.clone(), self.node(source));
        let pairs = long(&to).into_iter().zip(long(&repeated.shape));
        let pairs: Vec<(usize, usize)> = pairs.collect();
        let alike = pairs.len() == long(&to).len().max(long(&repeated.shape).len())
            && pairs.iter().all(|&(t, s)| to[t] == repeated.shape[s]);
        if repeated.op != Op::Broadcast || !alike {
            return Ok(None);
        }
        let from = repeated.operands[0];
        let mut inner = vec![1; to.len()];
        for (t, s) in pairs {
            inner[t] = self.shape(from)[s];
        }
        if to[axis] == 1 || inner[axis] > 1 {
            return Ok(None);
        }
        let one = self.reshape(from, &inner)?;
        let mut shape = to;
        shape[axis] = 1;
        self.broadcast(one, &shape).map(Some)
    }
}
