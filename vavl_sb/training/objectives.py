"""What a head's loss is made of: the rows of a batch that have its modality.

Authors
 * The vavl_sb authors 2026
"""

OUTPUTS = ("audio", "visual", "audiovisual")


def head_rows(out, head):
    """One head's predictions, and which rows of the batch they hold for.

    Arguments
    ---------
    out : vavl_sb.lobes.vavl.VAVLOutput
        Of a batch of B clips.
    head : str
        One of ``OUTPUTS``.

    Returns
    -------
    predictions : torch.Tensor
        Shape (B, num_outputs); None where no row has what the head needs.
    rows : torch.Tensor
        Bool, shape (B,); None likewise.
    """
    predictions = getattr(out, head)
    if predictions is None:
        return None, None
    if head == "audiovisual":
        return predictions, out.has_audio & out.has_visual
    return predictions, getattr(out, f"has_{head}")


def loss_parts(net, out, head, targets):
    """Predictions and targets of one head, row by row.

    Arguments
    ---------
    net : vavl_sb.lobes.vavl.VAVL
        Whose output it is.
    out : vavl_sb.lobes.vavl.VAVLOutput
        Of a batch of B clips.
    head : str
        One of ``OUTPUTS``.
    targets : torch.Tensor
        Of all B clips: shape (B,) or (B, n).

    Returns
    -------
    list of torch.Tensor
        Predictions and targets; for one modality then the reconstruction and
        its target. All have the N rows that the head needs, which may be 0:
        another process may have some.
    """
    one = head != "audiovisual"
    predictions, rows = head_rows(out, head)
    if predictions is None:
        widths = [net.settings[f"{head}_dim"]] * 2 if one else []
        no_row = next(net.parameters()).new_zeros
        empty = [no_row(0, n) for n in (net.num_outputs, *widths)]
        return [empty[0], targets[:0], *empty[1:]]
    parts = [predictions, targets]
    if one:
        parts.append(getattr(out, f"{head}_reconstruction"))
        parts.append(getattr(out, f"{head}_target"))
    return [part[rows] for part in parts]
