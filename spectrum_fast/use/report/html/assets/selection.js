// The selection rule at a moving cut. It is spectrum_fast.choose.selection.select with default options, on ranks that Python
// made; a test holds the two to the same names at many percentages.

/** Groups of competing modules, best first, in the order in which the scan names them. */
function groupsOf(scan, grouping, always = scan.always) {
  const key = always === scan.always ? grouping : null;
  if (key !== null && scan.groupCache.has(key)) return scan.groupCache.get(key);
  const groups = new Map();
  for (let index = 0; index < scan.competing; index += 1) {
    const type = scan.type[index];
    const name = { type: scan.types, "experts-merged": scan.merged, reference: scan.bare }[grouping]?.[type] ?? "global";
    if (!groups.has(name)) groups.set(name, { name, members: [], always: [] });
    const group = groups.get(name);
    (always[index] ? group.always : group.members).push(index);
  }
  const list = [...groups.values()];
  for (const group of list) group.members.sort((a, b) => scan.order[a] - scan.order[b]);
  if (key !== null) scan.groupCache.set(key, list);
  return list;
}

/** How many of a group are taken: the reference's int(size * percent / 100). */
function countTaken(size, percent) {
  return Math.floor((size * percent) / 100);
}

/**
 * The selection at `percent`: for every module 0 (left out), 1 (taken) or 2 (trained always); and the cut of each group.
 * A part of a fused parameter has the state of the parameter.
 */
function selectModules(scan, percent, grouping, always = scan.always) {
  const state = new Uint8Array(scan.size);
  const rank = new Int32Array(scan.size);
  const groupSize = new Int32Array(scan.size);
  const cuts = groupsOf(scan, grouping, always).map((group) => {
    const taken = countTaken(group.members.length, percent);
    group.members.forEach((index, place) => {
      rank[index] = place + 1;
      groupSize[index] = group.members.length;
      if (place < taken) state[index] = 1;
    });
    for (const index of group.always) state[index] = 2;
    return cutOf(scan, group, taken);
  });
  for (let index = scan.competing; index < scan.size; index += 1) {
    if (scan.unit[index] >= 0) state[index] = state[scan.unit[index]];
  }
  return { state, rank, groupSize, cuts, percent, grouping };
}

function cutOf(scan, group, taken) {
  const { name, members, always } = group;
  const cut = { name, members, always, taken, size: members.length, gap: null, undecided: false };
  if (taken === 0 || taken === members.length) return cut;
  const above = members[taken - 1];
  const below = members[taken];
  const high = scan.snr[above];
  const low = scan.snr[below];
  if (high === null) {
    cut.gap = low === null ? 0 : null;
    cut.undecided = low === null;
    return cut;
  }
  cut.gap = low === null || high === 0 ? 0 : (high - low) / high;
  cut.undecided = low !== null && leastOf(scan, members.slice(0, taken)) <= mostOf(scan, members.slice(taken));
  return cut;
}

/** The least that the true score of any of these modules may be; noise-free ones are above all. */
function leastOf(scan, members) {
  let least = Infinity;
  for (const index of members) {
    if (scan.snr[index] !== null) least = Math.min(least, scan.snr[index] / (1 + (scan.error_bound[index] ?? 0)));
  }
  return least;
}

/** The most that it may be. */
function mostOf(scan, members) {
  let most = -Infinity;
  for (const index of members) {
    const bound = scan.error_bound[index] ?? 0;
    most = Math.max(most, bound < 1 ? scan.snr[index] / (1 - bound) : Infinity);
  }
  return most;
}

/** Names in the order of Selection.names: always (ties last), then by group and rank. */
function selectedNames(scan, selection) {
  const names = [];
  for (let index = 0; index < scan.competing; index += 1) {
    if (selection.state[index] === 2) names.push(scan.name[index]);
  }
  names.push(...scan.ties_always);
  for (const cut of selection.cuts) {
    for (const index of cut.members.slice(0, cut.taken)) names.push(scan.name[index]);
  }
  return names;
}

/** Ranks from 1, equal values sharing their mean; noise-free (null) is above all. */
function averageRanks(values) {
  const value = values.map((entry) => (entry === null ? Infinity : entry));
  const order = value.map((_, index) => index).sort((a, b) => (value[a] < value[b] ? -1 : value[a] > value[b] ? 1 : 0));
  const ranks = new Float64Array(value.length);
  for (let start = 0; start < order.length; ) {
    let end = start;
    while (end + 1 < order.length && value[order[end + 1]] === value[order[start]]) end += 1;
    for (let place = start; place <= end; place += 1) ranks[order[place]] = (start + end) / 2 + 1;
    start = end + 1;
  }
  return ranks;
}

/** Spearman's rank correlation; null where it is undefined. */
function spearman(a, b) {
  if (a.length < 2) return null;
  const mean = (a.length + 1) / 2;
  const x = averageRanks(a);
  const y = averageRanks(b);
  let [xx, yy, xy] = [0, 0, 0];
  for (let i = 0; i < x.length; i += 1) {
    xx += (x[i] - mean) ** 2;
    yy += (y[i] - mean) ** 2;
    xy += (x[i] - mean) * (y[i] - mean);
  }
  return xx === 0 || yy === 0 ? null : xy / Math.sqrt(xx * yy);
}
