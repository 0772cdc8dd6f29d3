"""A trial of what a training will run, before there is any work to lose."""

from biomassters.batches.order import EpochOrder
from biomassters.model.biomass_model import BiomassModel
from biomassters.model.trial import try_prediction, try_training
from biomassters.params.sections import AugmentationParams, PhaseParams
from biomassters.store.bands import N_MONTHS
from biomassters.store.chips import ChipStore
from biomassters.training.augmentation import may_drop_months


def try_steps(
    model: BiomassModel,
    store: ChipStore,
    order: EpochOrder,
    *,
    phase: PhaseParams,
    augmentation: AugmentationParams,
    precision: str,
) -> None:
    """Refuse a model that would fail in a step or in a validation; nothing of it changes.

    Args:
        model: On the device where it will train.
        store: The chips.
        order: Which of them make a micro-batch.
        phase: Says whether there is any augmentation.
        augmentation: Says whether chips lose months.
        precision: Arithmetic of the forward pass.

    Raises:
        ModelError: It does not run on the store's chips, or cannot train on so few of them.
    """
    try_prediction(model, store.chip_size, precision=precision)
    loses_months = phase.plain_epochs < phase.epochs and may_drop_months(augmentation)
    try_training(
        model,
        store.chip_size,
        n_chips=order.smallest_micro_batch,
        n_months=1 if loses_months else _count_fewest_months(model, store, order),
        precision=precision,
    )


def _count_fewest_months(model: BiomassModel, store: ChipStore, order: EpochOrder) -> int:
    if not model.ignores_absent_months:
        return N_MONTHS
    present = store.s2_present[order.indices].sum(axis=1)
    # A chip without any keeps all.
    return int(present[present > 0].min(initial=N_MONTHS))
